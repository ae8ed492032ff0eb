"""Whether this process is about to stop: then it finishes what it carries and takes nothing new."""

from __future__ import annotations

import threading

from inference.errors import Busy

RETRY_SECONDS = 3

_draining = threading.Event()
_counting = threading.Lock()
_held = 0


def begin() -> None:
    _draining.set()


def active() -> bool:
    return _draining.is_set()


class Hold:
    """A piece of work that a process is to finish before it stops. `release` may be called twice."""

    def __init__(self) -> None:
        self._held = True
        _count(1)

    def release(self) -> None:
        if self._held:
            self._held = False
            _count(-1)


def hold() -> Hold:
    return Hold()


def held() -> int:
    """How many pieces of work are held now."""
    return _held


def _count(change: int) -> None:
    global _held
    with _counting:
        _held += change


def refuse_new_work() -> None:
    """Raises Busy("draining") once this process has been told to stop."""
    if active():
        raise Busy(
            "draining",
            f"This server is being restarted and takes nothing new. Try again in {RETRY_SECONDS} seconds.",
            retry_after=RETRY_SECONDS,
        )
