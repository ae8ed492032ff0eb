"""Server-sent events: numbered, so that a client that comes back with Last-Event-ID goes on where it was.

The iterators are asynchronous: a server streams those, and a client that goes away ends them at once. A stream looks
every two seconds whether who asked is still let in.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from django.db import Error as DatabaseTrouble
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from rest_framework.utils.encoders import JSONEncoder

from inference.errors import InferenceError
from steering.access.going_on import may_go_on
from steering.access.principal import Principal
from steering.api.rest.errors import Refused

logger = logging.getLogger(__name__)

BEAT_SECONDS = 2.0
QUIET_SECONDS = 10.0  # a comment after so long, for proxies that close what is silent
MAX_STREAMS = 16  # of one person, in one process
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

_open: Counter[Any] = Counter()


def message(event: str, data: Any, id: object = None) -> bytes:
    """One event. JSON has no raw line ends, so the data is one line."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), cls=JSONEncoder)
    number = "" if id is None else f"id: {id}\n"
    return f"{number}event: {event}\ndata: {text}\n\n".encode()


def stream(who: Principal, events: AsyncIterator[bytes]) -> HttpResponseBase:
    """Raises Refused when this person follows too much at once."""
    if _open[who.user.pk] >= MAX_STREAMS:
        said = f"You follow {MAX_STREAMS} streams already. Close one, or wait until one ends."
        raise Refused(429, "too_many_streams", said, retry_after=5)
    return StreamingHttpResponse(_counted(who, events), content_type="text/event-stream", headers=HEADERS)


def ended() -> HttpResponse:
    """Nothing follows what the client has: 204 tells a browser's EventSource not to come back."""
    return HttpResponse(status=204, headers=HEADERS)


async def _counted(who: Principal, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    _open[who.user.pk] += 1
    try:
        async with aclosing(_watched(who, events)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                yield chunk
    except InferenceError as error:
        yield _failed(error.code, error.message)
    except DatabaseTrouble:
        logger.warning("A stream ended: the database does not answer", exc_info=True)
        yield _failed("database_unavailable", "The database does not answer. Come back with Last-Event-ID in a moment.")
    finally:
        _open[who.user.pk] -= 1


async def _watched(who: Principal, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What the events say, with comments while they are silent; ends when who asked is not let in any more."""
    looked = spoke = time.monotonic()
    reading: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            reading = reading or asyncio.ensure_future(anext(events, None))
            await asyncio.wait({reading}, timeout=BEAT_SECONDS)
            now = time.monotonic()
            if now - looked >= BEAT_SECONDS:
                looked = now
                if not await may_go_on(who):
                    yield _failed("revoked_key", "The key or account that opened this stream has ended.")
                    return
            if reading.done():
                chunk, reading, spoke = reading.result(), None, now
                if chunk is None:
                    return
                yield chunk
            elif now - spoke >= QUIET_SECONDS:
                spoke = now
                yield b": waiting\n\n"
    finally:
        if reading:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await events.aclose()  # type: ignore[attr-defined]


def _failed(code: str, text: str) -> bytes:
    return message("error", {"error": {"code": code, "message": text}})
