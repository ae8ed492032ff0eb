"""A server that shows faults which a real one cannot be made to show, as httpx's MockTransport."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
from steerboard import AsyncSteerboard, Steerboard

URL = "https://steerboard.test"
Reply = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class Script:
    """Answers with `replies` in their order, and keeps what was asked."""

    def __init__(self, *replies: Reply):
        self.replies, self.asked = list(replies), list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        assert self.replies, f"{request.method} {request.url} was not expected"
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply(request) if callable(reply) else reply

    def client(self, key: str | None = "sk-sb-test", **options: Any) -> Steerboard:
        http = httpx.Client(transport=httpx.MockTransport(self), follow_redirects=True)
        return Steerboard(URL, key, http_client=http, **{"model": "m", **options})

    def aclient(self, key: str | None = "sk-sb-test", **options: Any) -> AsyncSteerboard:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self), follow_redirects=True)
        return AsyncSteerboard(URL, key, http_client=http, **{"model": "m", **options})

    @property
    def paths(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.asked]


def says(status: int = 200, body: Any = None, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


def completion(text: str = "Paris") -> httpx.Response:
    return says(body={"choices": [{"text": text, "finish_reason": "stop"}], "model": "m"})


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Some bytes, then the connection is gone; for both kinds of client."""

    def __init__(self, *chunks: bytes, error: Exception | None = None):
        self.chunks, self.error = chunks, error

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks
        if self.error:
            raise self.error

    async def __aiter__(self) -> Any:
        for chunk in self:
            yield chunk


def stream(*chunks: str, error: Exception | None = None) -> httpx.Response:
    body = Broken(*(chunk.encode() for chunk in chunks), error=error)
    return httpx.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, stream=body)


def event(data: str, **fields: str) -> str:
    return "".join(f"{name}: {value}\n" for name, value in fields.items()) + f"data: {data}\n\n"
