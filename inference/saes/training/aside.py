"""Work that needs no model, on a thread of low priority, so that the engine's own thread goes on decoding."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")

NICENESS = 10  # of the thread that works, where the system knows that of threads
PAUSE, IDLE_PAUSE = 0.002, 0.02  # seconds that the engine's thread waits in one slice, beside rows and without


class Aside:
    """One thread that does one thing at a time. `call` waits for it in slices."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sae-training", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], T], pause: Callable[[], float]) -> Generator[None, None, T]:
        """None at least once and until it is done, then what it returned, or what it raised."""
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._work.put(work)
        yield None
        while not wait([future], timeout=pause()).done:
            yield None
        return future.result()

    def close(self) -> None:
        """End the thread once what it does is done; nobody waits for that."""
        self._work.put(None)

    def _run(self) -> None:
        with suppress(OSError, AttributeError):  # Linux counts priorities by thread
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while (work := self._work.get()) is not None:
            work()


@contextmanager
def aside() -> Iterator[Aside]:
    one = Aside()
    try:
        yield one
    finally:
        one.close()
