"""The database from the work of a policy, which outlives the request that began it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from channels.db import database_sync_to_async

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """`function` on any thread of the pool: the request's own one ends with the view."""
    return database_sync_to_async(function, thread_sensitive=False)
