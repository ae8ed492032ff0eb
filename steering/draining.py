"""Whether this process is about to stop: then it finishes what it carries and takes nothing new."""

from __future__ import annotations

import threading

from inference.errors import Busy

RETRY_SECONDS = 3

_draining = threading.Event()


def begin() -> None:
    _draining.set()


def active() -> bool:
    return _draining.is_set()


def refuse_new_work() -> None:
    """Raises Busy("draining") once this process has been told to stop."""
    if active():
        raise Busy(
            "draining",
            f"This server is being restarted and takes nothing new. Try again in {RETRY_SECONDS} seconds.",
            retry_after=RETRY_SECONDS,
        )
