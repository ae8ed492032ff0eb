"""The ASGI application: who may ask, which path is whose, and every failure as OpenAI words it."""

from __future__ import annotations

import asyncio
import hmac
import logging
from typing import Protocol

from steerboard.errors import (
    AuthenticationError,
    NotFoundError,
    OverloadedError,
    RateLimitError,
    SteerboardError,
    ValidationError,
)
from steerboard.serving.wire import Answer, Receive, Refusal, Scope, Send, Whole, body_of

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
        await _until_gone(answer, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        method, path = scope["method"], scope["path"].rstrip("/")
        if path == "/health" and method == "GET":
            return Whole({"status": "ok"})
        self._check_key(scope)
        if path == "/v1/models" and method == "GET":
            return await self._backend.models()
        if path not in POSTS:
            raise Refusal(404, f"There is nothing at {path}. There are /v1/models, {' and '.join(POSTS)}.")
        if method != "POST":
            raise Refusal(405, f"{path} takes POST.")
        return await self._backend.post(path, await body_of(receive))

    def _check_key(self, scope: Scope) -> None:
        if self._key is None:
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._key.encode()):
            raise Refusal(401, "This server wants its own API key, and another was sent.", code="invalid_api_key")


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


async def _until_gone(answer: Answer, receive: Receive, send: Send) -> None:
    """Send it; where the caller leaves, stop what is being written for it."""
    sending = asyncio.ensure_future(answer.send(send))
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not sending.done():
            sending.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
    if not sending.cancelled() and (error := sending.exception()):
        raise error


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
