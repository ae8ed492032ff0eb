"""The database from asynchronous code, for what someone waits for: one thread, which keeps its connection to SQLite.

Opening SQLite anew for every call, as Channels' `database_sync_to_async` does, takes longer than most calls themselves.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import connections

P = ParamSpec("P")
T = TypeVar("T")

_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")


async def in_database(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """`function` in the thread, from any loop. It must be short: all others wait for it."""
    context = contextvars.copy_context()
    call = lambda: context.run(_kept, function, *args, **kwargs)  # noqa: E731
    return await asyncio.get_running_loop().run_in_executor(_thread, call)


def _kept(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    _release()
    try:
        return function(*args, **kwargs)
    finally:
        _release()


def _release() -> None:
    """Close what is broken or has served its time, which for SQLite, a file of this machine, never comes."""
    for connection in connections.all(initialized_only=True):
        if connection.vendor == "sqlite":
            connection.close_at = None
        connection.close_if_unusable_or_obsolete()
