"""The rows of one request as one stream of events, watched over: a caller who may no longer ask ends all of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from django.db import Error as DatabaseTrouble

from inference.errors import InferenceError, from_wire
from inference.types import Event, Failed, Finished, GenerationRequest
from steering import gateway
from steering.access.going_on import CHECK_SECONDS, may_go_on, until_check
from steering.access.principal import Principal
from steering.api.openai.errors import ApiError, of_inference

log = logging.getLogger(__name__)

UNREAD_SECONDS = 60.0  # nobody takes events for so long: the reader is gone without a word

Item = tuple[int, Event] | ApiError
T = TypeVar("T")


class Rows:
    """`take` gives (row, event) as they come. `close` cancels what still runs, at any time; twice does no harm."""

    def __init__(
        self,
        requests: tuple[GenerationRequest, ...],
        may_go_on: Callable[[], Awaitable[bool]],
        on_unread: Callable[[], None],
    ):
        self._holds, self._on_unread = may_go_on, on_unread
        self._inbox: asyncio.Queue[Item | None] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None
        self._due, self._waiting = 0.0, False
        self._end: ApiError | None = None  # overtakes what waits to be read
        self._taken_at = time.monotonic()
        self._tasks = [asyncio.create_task(self._follow(i, request)) for i, request in enumerate(requests)]
        self._tasks.append(asyncio.create_task(self._watch()))

    async def take(self, patience: float) -> tuple[int, Event] | None:
        """The next event; None after `patience` seconds without one. Raises ApiError when the rows cannot go on."""
        self._taken_at = time.monotonic()
        item = await self._next(patience)
        if self._end is not None:
            raise self._end
        if item is None:
            return None
        if isinstance(item, ApiError):
            raise item
        row, event = item
        if isinstance(event, Failed):
            raise of_inference(from_wire(event.to_wire()))
        if isinstance(event, Finished) and event.reason == "cancelled":
            raise await self._why_cancelled()
        return row, event

    async def _next(self, patience: float) -> Item | None:
        if not self._inbox.empty():
            await asyncio.sleep(0)  # a reader that lags behind must not keep the loop to itself
            return self._inbox.get_nowait()
        self._due = asyncio.get_running_loop().time() + patience
        self._waiting = True
        if self._timer is None:
            self._ring()
        try:
            return await self._inbox.get()
        finally:
            self._waiting = False

    def _ring(self) -> None:
        """Give who has waited for too long nothing. One timer for many events: most come long before it."""
        loop, self._timer = asyncio.get_running_loop(), None
        if loop.time() < self._due:
            self._timer = loop.call_at(self._due, self._ring)
        elif self._waiting and self._inbox.empty():
            self._inbox.put_nowait(None)

    def _stop(self, error: ApiError) -> None:
        """End the rows now, and tell the reader at its next step."""
        self.close()
        self._end = error
        self._inbox.put_nowait(error)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._tasks:
            task.cancel()

    async def _follow(self, row: int, request: GenerationRequest) -> None:
        try:
            async with contextlib.aclosing(gateway.inference().generate(request)) as events:  # type: ignore[type-var]
                async for event in events:
                    self._inbox.put_nowait((row, event))
        except InferenceError as error:
            self._inbox.put_nowait(of_inference(error))
        except Exception:
            log.exception("A row of %s broke", request.id)
            self._inbox.put_nowait(ApiError(500, "server_error", "The model side failed unexpectedly. Try again."))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(until_check())
            if time.monotonic() - self._taken_at > UNREAD_SECONDS:
                self._stop(ApiError(503, "reader_stalled", "Nobody read this stream, so it was ended."))
                self._on_unread()
            elif not await self._may_go_on():
                self._stop(revoked())

    async def _may_go_on(self) -> bool:
        try:
            return await self._holds()
        except DatabaseTrouble:  # it says nothing of the key; asked again soon
            log.warning("Could not look whether a key is still valid: the database does not answer")
            return True

    async def _why_cancelled(self) -> ApiError:
        if not await self._may_go_on():
            return revoked()
        return ApiError(
            503, "stopped", "This was stopped by an administrator. Ask them before trying again.", retry=False
        )


def revoked() -> ApiError:
    return ApiError(
        401,
        "invalid_api_key",
        "The API key of this request was revoked or has expired while it ran. Make a new one on Keys & usage.",
    )


async def while_valid(who: Principal, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; it runs as long as the key holds and the caller waits. Raises ApiError(401) when it ends."""
    working = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({working}, timeout=CHECK_SECONDS))[0]:
            if not await may_go_on(who):
                raise revoked()
        return working.result()
    finally:
        working.cancel()
