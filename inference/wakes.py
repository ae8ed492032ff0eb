"""When those who listen to the engine are woken: once per step, as it begins to compute the next.

A thread that is woken wants the interpreter, which the engine needs from choosing tokens until the next pass computes,
and not while it does. So in a thread that has called `hold`, wakes wait for the next `release`; in others they do not.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

Wake = Callable[[], None]


class _Waiting(threading.local):
    wakes: list[Wake] | None = None


_waiting = _Waiting()


def hold() -> None:
    """Let wakes of this thread wait. Whoever calls this sees to it that `release` follows soon, whatever happens."""
    _waiting.wakes = []


def release() -> None:
    """Do what waits; later wakes wait for the next release."""
    if _waiting.wakes:
        wakes, _waiting.wakes = _waiting.wakes, []
        for wake in wakes:
            try:
                wake()
            except Exception:  # the others must not sleep on
                log.exception("a listener could not be woken")


def stop_holding() -> None:
    release()
    _waiting.wakes = None


def wake(action: Wake) -> None:
    """Do it now, or at the next release."""
    if _waiting.wakes is None:
        action()
    else:
        _waiting.wakes.append(action)
