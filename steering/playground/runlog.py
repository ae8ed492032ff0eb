"""The events of one run, in memory while it runs: written on one loop, followed from any other.

In the process that carries the run this is the original; in others a copy, see `replicas.py`.

An event's `seq` is its place in the list, so the numbers are contiguous and no event can come twice. Followers are only
poked; each reads the list at its own pace, and a slow one holds nobody up. Rows rebuild the same list later.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

Event = dict[str, Any]

FRAME_EVENTS = 400  # in one message to a browser
GATHER_SECONDS = 0.002  # lanes of one batch speak within a millisecond or two of each other: one frame carries them all


class RunLog:
    """Append-only. `add` and `close` belong to the loop that runs the lanes; `follow` may be used on any loop.

    `lost` says that the log ended before its run did: what is true of the run now stands in the database.
    """

    def __init__(self, events: Iterable[Event] = ()):
        self.events: list[Event] = [{**event, "seq": seq} for seq, event in enumerate(events)]
        self.closed = False
        self.lost = False
        self._followers: set[_Follower] = set()

    def add(self, event: Event) -> Event:
        """Append with the next sequence number and poke everyone who follows. A closed log stays as it is."""
        numbered = {**event, "seq": len(self.events)}
        if self.closed:
            return numbered
        self.events.append(numbered)
        self._poke()
        return numbered

    def close(self, *, lost: bool = False) -> None:
        self.closed, self.lost = True, lost
        self._poke()

    @property
    def followed(self) -> bool:
        return bool(self._followers)

    async def follow(self, after: int = -1) -> AsyncIterator[list[Event]]:
        """Lists of events above `after`, each event once and in order; ends when the log is closed and read."""
        follower = _Follower(asyncio.get_running_loop())
        self._followers.add(follower)
        try:
            at = after + 1
            while True:
                follower.rest()
                closed = self.closed  # before reading: what is added before closing must still be read
                frame = self.events[at : at + FRAME_EVENTS]
                at += len(frame)
                if frame:
                    yield frame
                elif closed:
                    return
                else:
                    await follower.wait()
        finally:
            self._followers.discard(follower)

    def _poke(self) -> None:
        for follower in tuple(self._followers):  # a copy: other threads come and go
            follower.poke()


class _Follower:
    """Is woken once for all that came until it reads.

    On its own loop that is behind whatever is ready now, so behind the tokens of all lanes of one step of the engine. A
    timer each would wake the loop, and take the interpreter from the engine, once per follower.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._news = asyncio.Event()
        self._poked = False

    def rest(self) -> None:
        """To be called before reading: what is appended from here on pokes again."""
        self._poked = False
        self._news.clear()

    def poke(self) -> None:
        if self._poked:
            return
        self._poked = True
        if asyncio._get_running_loop() is self._loop:  # None in a thread without one
            self._news.set()
            return
        with contextlib.suppress(RuntimeError):  # its loop has ended, and with it the follower
            self._loop.call_soon_threadsafe(self._wake_soon)

    def _wake_soon(self) -> None:
        self._loop.call_later(GATHER_SECONDS, self._news.set)

    async def wait(self) -> None:
        await self._news.wait()
