"""Carries requests and events between one event loop and the engine's thread: many at a time, each way.

Each wake-up costs both, and an idle engine begins with what it has been given: six prompts one by one take half as long
again as six together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from inference import arrivals, wakes
from inference.serving.host import ModelHost, Start
from inference.types import Event

COMPANY_SECONDS = 0.03  # that an idle engine waits at most, for requests that are being admitted
LOOK_SECONDS = 0.001


class Courier:
    def __init__(self, loop: asyncio.AbstractEventLoop, host: ModelHost):
        self._loop, self._host = loop, host
        self._starts: list[Start] = []
        self._since = 0.0  # when the first of them came
        self._carried: deque[tuple[asyncio.Queue[Event], Event]] = deque()
        self._called = False

    def start(self, start: Start) -> None:
        """With all that the loop has ready now, and with who is about to come if the engine is idle. On the loop."""
        self._starts.append(start)
        if len(self._starts) == 1:
            self._since = self._loop.time()
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        if self._starts and self._company_comes():
            self._loop.call_later(LOOK_SECONDS, self._look)
        else:
            self.hand_over()

    def _company_comes(self) -> bool:
        """Whether waiting a little longer fills the first pass of an idle engine."""
        engine = self._starts[0].engine
        tokens = sum(start.prepared.row.prompt_length for start in self._starts)
        return (
            arrivals.expected() > len(self._starts)
            and tokens < engine.limits.prefill_tokens
            and not engine.busy
            and self._loop.time() - self._since < COMPANY_SECONDS
        )

    def hand_over(self) -> None:
        """Whatever waits, at once. On the loop."""
        starts, self._starts = self._starts, []
        self._host.start(starts)

    def carry(self, inbox: asyncio.Queue[Event], event: Event) -> None:
        """From any thread."""
        self._carried.append((inbox, event))
        if not self._called:
            self._called = True
            wakes.wake(self._call)

    def _call(self) -> None:
        with contextlib.suppress(RuntimeError):  # the listener's loop is gone, and the listener with it
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._called = False  # before looking: what comes from now on calls again
        while self._carried:
            inbox, event = self._carried.popleft()
            inbox.put_nowait(event)
