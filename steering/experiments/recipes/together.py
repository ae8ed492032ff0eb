"""Waiting for many things at once, in the order in which they end; the first failure ends the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def as_they_end(coming: Iterable[Coroutine[Any, Any, T]]) -> AsyncIterator[T]:
    tasks = [asyncio.ensure_future(one) for one in coming]
    try:
        for ended in asyncio.as_completed(tasks):
            yield await ended
    finally:
        await _end(tasks)


async def all_of(coming: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """In the order given."""
    tasks = [asyncio.ensure_future(one) for one in coming]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await _end(tasks)


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
