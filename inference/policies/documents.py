"""JSON in answers, and JSON Schemas (Draft 2020-12): bounded in size and depth, linear in patterns, nothing fetched."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import jsonschema_rs

from inference.errors import InvalidRequest
from inference.policies import effort
from inference.policies.schema import LONGEST_TEXT

DEEPEST = 64
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[\]}]', re.DOTALL)


class NotJson(ValueError):
    """The text is no JSON; the message says where."""


def read_json(text: str) -> Any:
    """The value of a text that is JSON and nothing else. Raises NotJson."""
    if depth(text) > DEEPEST:
        raise NotJson(f"it is nested more than {DEEPEST} deep")
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"at line {error.lineno} column {error.colno}"
        raise NotJson(f"{error.msg[0].lower()}{error.msg[1:]} {place}") from None
    except ValueError as error:  # what Python says of long numbers
        raise NotJson("a number has too many digits") from error


def check_schema(schema: Mapping[str, Any], name: str) -> None:
    """Raises InvalidRequest("bad_<name>") for what is no schema, is too large, or points elsewhere."""
    try:
        text = json.dumps(schema)
    except (RecursionError, ValueError):
        raise InvalidRequest(f"bad_{name}", f"{name} is nested too deeply. Define parts under $defs.") from None
    if len(text) > LONGEST_TEXT or depth(text) > DEEPEST:
        raise InvalidRequest(
            f"bad_{name}",
            f"{name} may have {LONGEST_TEXT:,} characters and be {DEEPEST} deep; this one has {len(text):,} and is "
            f"{depth(text)} deep. Define parts under $defs, or leave some out.",
        )
    for pointer in effort.pointers(schema):
        if pointer != "#" and not pointer.startswith("#/"):
            raise InvalidRequest(
                f"bad_{name}", f"{name} refers to {pointer[:80]!r}. Put it under $defs and refer to #/$defs/…."
            )
    try:
        _validator(text)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        said = str(getattr(error, "message", "") or error).partition("\n")[0][:300]
        raise InvalidRequest(
            f"bad_{name}",
            f"{name} cannot be used: {said}. It must be a JSON Schema of Draft 2020-12 without look-arounds in "
            "patterns, and hold all that it refers to.",
        ) from None


def violation(value: Any, schema: Mapping[str, Any]) -> str:
    """Why a value does not fit a schema: the first thing found, with its place; nothing where it fits."""
    if effort.too_much(schema, value):
        return "the schema takes too many steps on it"
    error = next(iter(_validator(json.dumps(schema)).iter_errors(value)), None)
    if error is None:
        return ""
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path).lstrip(".")
    return f"{f'at {place}: ' if place else ''}{error.message}"[:300]


def depth(text: str) -> int:
    """How deep brackets nest outside of strings."""
    deepest = level = 0
    for found in _BRACKETS.finditer(text):
        level += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        deepest = max(deepest, level)
    return deepest


@functools.lru_cache(maxsize=64)
def _validator(text: str) -> Any:
    return jsonschema_rs.Draft202012Validator(
        json.loads(text), pattern_options=jsonschema_rs.RegexOptions(size_limit=1_000_000), retriever=_fetch_nothing
    )


def _fetch_nothing(uri: str) -> NoReturn:
    raise ValueError(f"{uri[:80]!r} lies elsewhere, and nothing is fetched")


def _no_constant(name: str) -> NoReturn:
    raise NotJson(f"{name} is no JSON")
