"""How a program is answered that waits for work: with events, or with JSON, and a sign of life while it lasts.

Mechanex's client takes every 2xx for success and reads the body as JSON, gives up on a POST that is silent for a
minute, and buffers events until the stream closes, of which the last "complete" counts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from django.http import HttpResponseBase, JsonResponse, StreamingHttpResponse
from rest_framework.utils.encoders import JSONEncoder

from steering.compat.refusing import explained

FIRST_SECONDS = 5.0  # what fails within them is refused with a status of its own
BEAT_SECONDS = 5.0  # between two signs of life while work lasts
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def as_json(answer: Any) -> JsonResponse:
    return JsonResponse(answer, safe=False, encoder=JSONEncoder, json_dumps_params={"ensure_ascii": False})


# ---- events ----


async def events(source: AsyncIterator[dict[str, Any]]) -> HttpResponseBase:
    """Server-sent events `{"status": "progress" | "complete", …}`. What fails before the first one is raised.

    A later failure is `{"status": "error", "message": sentence}`. Whoever leaves ends the work.
    """
    first = asyncio.ensure_future(anext(source, None))
    kept = False
    try:
        await asyncio.wait({first}, timeout=FIRST_SECONDS)
        if first.done():
            first.result()
        kept = True
        return StreamingHttpResponse(
            _sent(first, source), content_type="text/event-stream; charset=utf-8", headers=STREAM_HEADERS
        )
    finally:
        if not kept:
            await _end(first, source)


async def _sent(first: asyncio.Future[Any], source: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    reading = first
    try:
        while True:
            await asyncio.wait({reading}, timeout=BEAT_SECONDS)
            if not reading.done():
                yield b": still here\n\n"
                continue
            event = reading.result()
            if event is None:
                return
            yield _frame(event)
            reading = asyncio.ensure_future(anext(source, None))
    except Exception as error:
        yield _frame({"status": "error", "message": explained(error)[1]})
    finally:
        await _end(reading, source)


def _frame(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'), cls=JSONEncoder)}\n\n".encode()


async def _end(reading: asyncio.Future[Any], source: AsyncIterator[dict[str, Any]]) -> None:
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await source.aclose()  # type: ignore[attr-defined]


# ---- patience ----


async def patient(work: Awaitable[Any]) -> HttpResponseBase:
    """What `work` returns, as JSON, preceded by spaces while it lasts. Whoever leaves ends the work.

    What fails within the first seconds is raised. A later failure can have no status any more: the body is then
    `error 503: sentence`, which is no JSON, so that no client takes it for success.
    """
    working = asyncio.ensure_future(work)
    kept = False
    try:
        await asyncio.wait({working}, timeout=FIRST_SECONDS)
        if working.done():
            return as_json(working.result())
        kept = True
        return StreamingHttpResponse(_awaited(working), content_type="application/json", headers=STREAM_HEADERS)
    finally:
        if not kept:
            await _stop(working)


async def _awaited(working: asyncio.Future[Any]) -> AsyncIterator[bytes]:
    try:
        while not working.done():
            yield b" "
            await asyncio.wait({working}, timeout=BEAT_SECONDS)
        yield as_json(working.result()).content
    except Exception as error:
        status, sentence, _ = explained(error)
        yield f"error {status}: {sentence}".encode()
    finally:
        await _stop(working)


async def _stop(working: asyncio.Future[Any]) -> None:
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
