"""The ASGI application: who may ask, which path is whose, and every failure as OpenAI words it."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from steerboard.errors import (
    AuthenticationError,
    NotFoundError,
    OverloadedError,
    RateLimitError,
    SteerboardError,
    ValidationError,
)
from steerboard.serving.addresses import is_loopback
from steerboard.serving.wire import Answer, Receive, Refusal, Scope, Send, Streamed, Whole, body_of

T = TypeVar("T")
log = logging.getLogger("steerboard.serving")
STATUS: list[tuple[type[SteerboardError], int]] = [
    (ValidationError, 400),
    (AuthenticationError, 401),
    (NotFoundError, 404),
    (RateLimitError, 429),
    (OverloadedError, 503),
]
POSTS = ("/v1/chat/completions", "/v1/completions")


class Backend(Protocol):
    """What answers. Raises Refusal, SteerboardError or InferenceError before an answer has begun."""

    async def models(self) -> Answer: ...

    async def post(self, path: str, raw: bytes) -> Answer: ...


class App:
    def __init__(self, backend: Backend, api_key: str | None = None):
        self._backend, self._key = backend, api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        if scope["type"] != "http":
            return
        try:
            answer = await self._answer(scope, receive)
        except ConnectionError:
            return
        except Exception as error:
            answer = _refused(error)
        try:
            await _unless_gone(answer.send(send), receive)
        except ConnectionError:
            return
        finally:
            if isinstance(answer, Streamed):
                answer.end()

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        method, path = scope["method"], scope["path"].rstrip("/")
        if path == "/health" and method == "GET":
            return Whole({"status": "ok"})
        self._check_key(scope)
        self._check_host(scope)
        if path == "/v1/models" and method == "GET":
            return await self._backend.models()
        if path not in POSTS:
            raise Refusal(404, f"There is nothing at {path}. There are /v1/models, {' and '.join(POSTS)}.")
        if method != "POST":
            raise Refusal(405, f"{path} takes POST.")
        self._check_kind(scope)
        raw = await body_of(receive)
        return await _unless_gone(self._backend.post(path, raw), receive)

    def _check_key(self, scope: Scope) -> None:
        if self._key is None:
            return
        headers = _headers(scope)
        given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._key.encode()):
            raise Refusal(401, "This server wants its own API key, and another was sent.", code="invalid_api_key")

    def _check_host(self, scope: Scope) -> None:
        """Without a key, being on this machine is what lets one in. A page of others in its browser reaches this
        address by a name of its own."""
        if self._key is None and not is_loopback(_host_of(_headers(scope).get("host", ""))):
            raise Refusal(
                403,
                "Without a key this server answers to localhost and 127.0.0.1, and it was asked by another name. Use "
                "one of these, or set a key with api_key.",
                code="foreign_host",
            )

    def _check_kind(self, scope: Scope) -> None:
        """A page of others may send a text or a form without being asked whether it may, but no JSON."""
        kind = _headers(scope).get("content-type", "")
        if self._key is None and kind.partition(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "Send JSON, as OpenAI's clients do: Content-Type: application/json.")


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _host_of(header: str) -> str:
    """Without its port: of "[::1]:8001" that is "::1"."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _refused(error: Exception) -> Whole:
    if isinstance(error, Refusal):
        return Whole(error.body(), error.status)
    known = of_error(error)
    if known is None:
        log.exception("A request failed", exc_info=error)
        known = Refusal(500, "This server failed to answer; its log says why.")
    return Whole(known.body(), known.status)


def of_error(error: Exception) -> Refusal | None:
    """As OpenAI words it, or None for what is a bug."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, SteerboardError):
        status = next((status for kind, status in STATUS if isinstance(error, kind)), error.status_code or 500)
        said = f"{error.message} {error.cure}" if error.cure else error.message
        return Refusal(status, said, code=error.code)
    if hasattr(error, "kind") and hasattr(error, "code"):  # of the model side
        from steerboard.local.errors import ours

        return of_error(ours(error))
    return None


async def _unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """What the work gives. Where the caller leaves, the work is ended. Raises ConnectionError."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ConnectionError
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
