"""Small checks at the edge, each refusing with a sentence."""

from __future__ import annotations

from uuid import UUID

from inference.errors import InvalidRequest


def need(holds: bool, code: str, sentence: str) -> None:
    """Raises InvalidRequest(code) with the sentence unless it holds."""
    if not holds:
        raise InvalidRequest(code, sentence)


def parse_uuid(text: str, what: str) -> UUID:
    """Raises InvalidRequest("bad_id")."""
    try:
        return UUID(text)
    except ValueError:
        raise InvalidRequest("bad_id", f"{text!r:.60} does not name a {what}. Pick one from the list.") from None
