"""How much work a schema is on a value, before it is done: references can make a short schema take for ever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

MOST_STEPS = 100_000
_HERE = ("not", "if", "then", "else")
_HERE_EACH = ("allOf", "anyOf", "oneOf")
_BELOW_EACH = (
    "items",
    "contains",
    "additionalProperties",
    "unevaluatedProperties",
    "unevaluatedItems",
    "propertyNames",
)
_REFERENCES = ("$ref", "$dynamicRef")


def too_much(schema: Any, value: Any) -> bool:
    """Whether applying every part of the schema wherever it applies takes more than MOST_STEPS steps."""
    stack, steps = [(schema, value)], 0
    while stack:
        steps += 1
        if steps > MOST_STEPS:
            return True
        part, node = stack.pop()
        if isinstance(part, dict):
            stack.extend(_applied(schema, part, node))
    return False


def pointers(schema: Any) -> Iterator[str]:
    """What a schema refers to."""
    stack = [schema]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            yield from (part[name] for name in _REFERENCES if isinstance(part.get(name), str))
            stack.extend(part.values())
        elif isinstance(part, list):
            stack.extend(part)


def target(schema: Any, pointer: str) -> Any:
    """The part that `#/a/b` names. Raises KeyError, IndexError, ValueError or TypeError where there is none."""
    part = schema
    for step in unquote(pointer.removeprefix("#")).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        part = part[int(name)] if isinstance(part, list) else part[name]
    return part


def _applied(root: Any, part: dict[str, Any], node: Any) -> Iterator[tuple[Any, Any]]:
    children = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    for name, sub in part.items():
        if name in _REFERENCES:
            yield target(root, sub), node
        elif name in _HERE:
            yield sub, node
        elif name in _HERE_EACH:
            yield from ((each, node) for each in sub)
        elif name == "dependentSchemas":
            yield from ((each, node) for each in sub.values())
        elif name == "properties" and isinstance(node, dict):
            yield from ((sub[key], node[key]) for key in sub if key in node)
        elif name == "prefixItems":
            yield from zip(sub, children, strict=False)
        elif name == "patternProperties":
            yield from ((each, child) for each in sub.values() for child in children)
        elif name in _BELOW_EACH:
            yield from ((sub, child) for child in children)
