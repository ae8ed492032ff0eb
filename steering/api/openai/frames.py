"""Server-sent events as OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from steering.encoding import encoded

STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def frames(events: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """One frame each; an event that says its `type` is named by it."""
    for event in events:
        name = f"event: {event['type']}\n".encode() if "type" in event else b""
        yield b"%bdata: %b\n\n" % (name, encoded(event))
