"""JSON of strangers: no duplicate keys, no NaN, no bottomless nesting."""

from __future__ import annotations

import json
from typing import Any

from inference.errors import InvalidRequest


def parse(data: bytes, where: str) -> dict[str, Any]:
    """An object. Raises InvalidRequest("bad_json" or "duplicate_layer")."""
    try:
        found = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse)
    except _Twice as error:
        raise InvalidRequest("duplicate_layer", f"{where} has {error.name!r:.40} twice. Keep one of them.") from None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        why = str(error)[:80] if isinstance(error, ValueError) else "nested too deeply"
        raise InvalidRequest("bad_json", f"{where} is not JSON: {why}. Export it again.") from None
    if not isinstance(found, dict):
        raise InvalidRequest("bad_json", f"{where} is not a JSON object of layers. Export it again.")
    return found


class _Twice(ValueError):
    def __init__(self, name: str):
        self.name = name


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, value in pairs:
        if name in seen:
            raise _Twice(name)
        seen[name] = value
    return seen


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number")
