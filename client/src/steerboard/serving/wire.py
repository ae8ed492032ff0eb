"""ASGI by hand: a request's body in, JSON or server-sent events out. Few paths need no framework."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

MOST_BYTES = 16 * 2**20


class Refusal(Exception):
    """As OpenAI words it: status, type, param and code."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Whole:
    """`content` is bytes, or becomes JSON."""

    content: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    async def send(self, send: Send) -> None:
        raw = isinstance(self.content, bytes)
        data = self.content if raw else json.dumps(self.content).encode()
        kind = {} if raw else {"content-type": "application/json"}
        await _begin(send, self.status, {**kind, **self.headers})
        await send({"type": "http.response.body", "body": data})


@dataclass(frozen=True)
class Streamed:
    """Pieces of bytes as they come. `end` ends what makes them, sent or not."""

    pieces: AsyncIterator[bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream"})
    end: Callable[[], None] = lambda: None

    async def send(self, send: Send) -> None:
        await _begin(send, self.status, {**self.headers, "cache-control": "no-cache"})
        async for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


Answer = Whole | Streamed


async def _begin(send: Send, status: int, headers: Mapping[str, str]) -> None:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def body_of(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BYTES:
            raise Refusal(413, f"A body may have {MOST_BYTES >> 20} MiB. Send less.")
        more = message.get("more_body", False)
    return b"".join(parts)


def json_of(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refusal(400, "The body is no JSON object. Send one, as OpenAI's clients do.")
    return value


def event(data: Any) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
