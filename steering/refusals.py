"""Small checks at the edge, each refusing with a sentence."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from inference.errors import InvalidRequest


def need(holds: bool, code: str, sentence: str) -> None:
    """Raises InvalidRequest(code) with the sentence unless it holds."""
    if not holds:
        raise InvalidRequest(code, sentence)


def parse_json(body: bytes | str) -> Any:
    """Raises InvalidRequest("bad_json")."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidRequest("bad_json", "This request is not JSON. Reload the page.") from None


def storable(text: str, what: str) -> None:
    """Text that every database and every model takes. Raises InvalidRequest("bad_text")."""
    need(
        "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text),
        "bad_text",
        f"{what} has a character that is not text, such as NUL or half of a pair. Take it out.",
    )


def parse_uuid(text: str, what: str) -> UUID:
    """Raises InvalidRequest("bad_id")."""
    try:
        return UUID(text)
    except ValueError:
        raise InvalidRequest("bad_id", f"{text!r:.60} does not name a {what}. Pick one from the list.") from None
