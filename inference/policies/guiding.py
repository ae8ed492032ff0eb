"""Which constraint of a policy holds while the answer is written, and what all of them ask of it at the end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from inference.policies.documents import NotJson, read_json, violation
from inference.policies.patterns import as_pattern, cannot_hold, mismatch
from inference.policies.schema import Constraints
from inference.policies.toolcalls import call_schema
from inference.policies.trace import Check, Enforced
from inference.types import Constraint

JSON_VALUE: dict[str, Any] = {"type": ["object", "array"]}


def wants_json(c: Constraints) -> bool:
    return bool(c.json_mode or c.json_schema is not None or c.required_fields or c.tool_schema is not None)


def asked(c: Constraints) -> tuple[str, ...]:
    """The names of the constraints that are set, but for stop sequences, which only end the text."""
    names = (
        "json_mode",
        "json_schema",
        "required_fields",
        "regex_pattern",
        "grammar",
        "forbidden_terms",
        "tool_schema",
    )
    return tuple(name for name in names if getattr(c, name) not in (None, False, ()))


def guide_of(c: Constraints) -> tuple[Constraint | None, Enforced]:
    """The one constraint that is enforced token by token, and what is left to be checked and why."""
    constraint, enforced = _constraint(c)
    why = []
    problem = cannot_hold(constraint) if constraint else ""
    if problem:
        why.append(f"{' and '.join(enforced)} cannot be enforced: {problem}")
        constraint, enforced = None, ()
    checked = tuple(name for name in asked(c) if name not in enforced)
    left = [name for name in checked if name != "forbidden_terms"]
    if "forbidden_terms" in checked:
        why.append("forbidden_terms can only be checked.")
    if left and not problem:
        why.append(f"One kind of constraint is enforced at a time; {', '.join(left)} {_is(left)} checked at the end.")
    return constraint, Enforced(enforced, checked, " ".join(why))


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _constraint(c: Constraints) -> tuple[Constraint | None, tuple[str, ...]]:
    if c.tool_schema is not None:
        said = ("tool_schema", *(("json_mode",) if c.json_mode else ()))
        return Constraint("json_schema", json.dumps(call_schema(c.tool_schema))), said
    if wants_json(c):
        schema, with_fields = _with_fields(c.json_schema, c.required_fields)
        names = (
            ("json_mode", c.json_mode),
            ("json_schema", c.json_schema is not None),
            ("required_fields", with_fields),
        )
        return Constraint("json_schema", json.dumps(schema)), tuple(name for name, held in names if held)
    if c.regex_pattern is not None:
        return Constraint("regex", c.regex_pattern), ("regex_pattern",)
    if c.grammar is not None:
        kind, text = as_pattern(c.grammar)
        return Constraint(kind, text), ("grammar",)
    return None, ()


def _with_fields(schema: Mapping[str, Any] | None, fields: tuple[str, ...]) -> tuple[Mapping[str, Any], bool]:
    """The schema with the required fields in it, where it plainly describes an object."""
    if not fields:
        return (JSON_VALUE if schema is None else schema), False
    if schema is None:
        schema = {"type": "object"}
    if schema.get("type") != "object":
        return schema, False
    known = schema.get("properties", {})
    missing: dict[str, Any] = {field: {} for field in fields if field not in known}
    required = list(dict.fromkeys([*schema.get("required", []), *fields]))
    return {**schema, "properties": {**known, **missing}, "required": required}, True


def checks(c: Constraints, text: str, enforced: tuple[str, ...]) -> tuple[Check, ...]:
    """Every constraint that is set, looked at in a finished text."""
    return tuple(Check(name, not reason, name in enforced, reason) for name, reason in _looked_at(c, text))


def _looked_at(c: Constraints, text: str) -> Iterator[tuple[str, str]]:
    if wants_json(c):
        yield from _json_checks(c, text)
    if c.regex_pattern is not None:
        yield (
            "regex_pattern",
            _prefixed("the whole answer must match the pattern; ", mismatch("regex", c.regex_pattern, text)),
        )
    if c.grammar is not None:
        kind, grammar = as_pattern(c.grammar)
        yield "grammar", _prefixed("the answer must follow the grammar; ", mismatch(kind, grammar, text))
    if c.forbidden_terms:
        found = [term for term in c.forbidden_terms if term.casefold() in text.casefold()]
        yield "forbidden_terms", f"it may not contain {', '.join(map(repr, found))}" if found else ""


def _json_checks(c: Constraints, text: str) -> Iterator[tuple[str, str]]:
    try:
        value, broken = read_json(text), ""
    except NotJson as error:
        value, broken = None, f"it must be JSON and nothing else; {error}"
    if c.json_mode:
        yield "json_mode", broken or ("" if isinstance(value, dict | list) else "it must be a JSON object or array")
    if c.json_schema is not None:
        yield "json_schema", broken or violation(value, c.json_schema)
    if c.required_fields:
        yield "required_fields", broken or _missing(value, c.required_fields)
    if c.tool_schema is not None:
        yield "tool_schema", broken or violation(value, call_schema(c.tool_schema))


def _missing(value: Any, fields: tuple[str, ...]) -> str:
    if not isinstance(value, dict):
        return "it must be a JSON object"
    gone = [field for field in fields if field not in value]
    return f"the field {', '.join(map(repr, gone))} is missing" if gone else ""


def _prefixed(prefix: str, reason: str) -> str:
    return prefix + reason if reason else ""
