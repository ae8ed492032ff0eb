"""Waits for what takes milliseconds on an idle machine, and may take a hundred times that on one that is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 120.0  # seconds


def until(holds: Callable[[], T | None], seconds: float = PATIENCE, what: str = "it holds") -> T:
    """What `holds()` gives once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain until {what}"
        time.sleep(0.02)
    return found


async def auntil(holds: Callable[[], Awaitable[T | None]], what: str = "it holds") -> T:
    """`until`, of what is awaited."""
    deadline = time.monotonic() + PATIENCE
    while not (found := await holds()):
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s in vain until {what}"
        await asyncio.sleep(0.02)
    return found
