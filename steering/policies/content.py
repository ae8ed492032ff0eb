"""A policy as people hand it in: JSON, checked so that every database and every page takes it."""

from __future__ import annotations

import json
import math
from typing import Any

from inference.errors import InferenceError, InvalidRequest
from inference.policies.schema import Policy
from steering.refusals import need, storable

MAX_BYTES = 1_000_000  # a vector written out by hand fits
MAX_DEPTH = 60
OUTSIDE = ("id", "name", "description")  # said beside a stored policy, not in it


def check_content(content: Any) -> Policy:
    """Raises InvalidRequest naming the first thing at fault."""
    need(isinstance(content, dict), "bad_policy", "A policy is a JSON object, such as {}. This is something else.")
    for text in _texts(content):
        storable(text, "The policy")
    size = len(json.dumps(content, ensure_ascii=False).encode())
    need(
        size <= MAX_BYTES,
        "policy_too_large",
        f"This policy has {size:,} bytes; {MAX_BYTES:,} is the most. Store the vector in the library and name it.",
    )
    return Policy.parse(content)


def parse_text(text: str) -> dict[str, Any]:
    """JSON as people type it. Raises InvalidRequest("bad_json") with the line and the column."""
    try:
        found = json.loads(text or "{}", parse_constant=_no_such_number)
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            "bad_json",
            f"This is not JSON: {error.msg[:1].lower()}{error.msg[1:]}, at line {error.lineno}, column {error.colno}.",
        ) from None
    except (ValueError, RecursionError) as error:
        said = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise InvalidRequest("bad_json", f"This is not JSON that can be kept: {said[:200]}.") from None
    if not isinstance(found, dict):
        raise InvalidRequest("bad_json", "A policy is a JSON object: it begins with { and ends with }.")
    return found


def _no_such_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _texts(content: Any) -> list[str]:
    """Every key and every text in it. Raises InvalidRequest for what is nested too deeply, or no finite number."""
    found: list[str] = []
    waiting: list[tuple[Any, int]] = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        need(depth <= MAX_DEPTH, "policy_too_deep", f"A policy may be nested {MAX_DEPTH} deep. Make it flatter.")
        if isinstance(value, dict):
            found += [str(key) for key in value]
            waiting += [(child, depth + 1) for child in value.values()]
        elif isinstance(value, list):
            waiting += [(child, depth + 1) for child in value]
        elif isinstance(value, str):
            found.append(value)
        elif isinstance(value, float):
            need(math.isfinite(value), "bad_number", "A policy has a number that is not finite. Write another one.")
    return found


def as_text(content: dict[str, Any]) -> str:
    """For people. What no page can carry, half of a pair of surrogates, is written as its escape."""
    text = json.dumps(content, ensure_ascii=False, indent=2)
    return text if text == shown_text(text) else json.dumps(content, indent=2)


def shown_text(text: str) -> str:
    """The text with ? where it has what no page can carry."""
    return text.encode(errors="replace").decode()


def problem_of(content: dict[str, Any]) -> InferenceError | None:
    """Why it is no policy, or None."""
    try:
        check_content(content)
    except InferenceError as error:
        return error
    return None
