"""JSON without its traps: no NaN, no giant numbers, no deep nesting, no key that appears twice."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from steering.datasets.limits import MAX_DEPTH, MAX_DIGITS, BadText


def read_json(text: str) -> Any:
    """Parse one JSON value. Raises BadText with a sentence that says what is wrong and where."""
    try:
        value = json.loads(
            text, parse_constant=_constant, parse_int=_integer, parse_float=_real, object_pairs_hook=_object
        )
    except json.JSONDecodeError as error:
        raise BadText(f"This is not valid JSON: {_reason(error)}") from None
    except RecursionError:
        raise BadText(_too_deep()) from None
    if _depth(value) > MAX_DEPTH:
        raise BadText(_too_deep())
    return value


def _reason(error: json.JSONDecodeError) -> str:
    reason = error.msg[0].lower() + error.msg[1:]
    return f"{reason}, at character {error.pos + 1}."


def _too_deep() -> str:
    return f"The brackets are nested more than {MAX_DEPTH} deep. Give plain texts."


def _constant(name: str) -> NoReturn:
    raise BadText(f"{name} is not a text and not valid JSON. Write the text in quotes.")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise BadText(f"There is a number with {len(digits):,} digits. Write the text in quotes.")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise BadText(f"The number {digits[:20]} is infinite. Write the text in quotes.")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadText(f"“{twice[:40]}” appears twice. Keep one of them.")
    return value


def _depth(value: Any) -> int:
    """Levels of nesting, without recursion; stops counting just past the limit."""
    level, layer = 0, [value]
    while layer and level <= MAX_DEPTH:
        layer = [inner for outer in layer if isinstance(outer, list | dict) for inner in _inside(outer)]
        level += 1
    return level


def _inside(outer: list[Any] | dict[str, Any]) -> list[Any]:
    return list(outer.values()) if isinstance(outer, dict) else outer
