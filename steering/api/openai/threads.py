"""The database from asynchronous code that may go on after its request was answered."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from channels.db import database_sync_to_async

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """`function` on any thread of the pool. The request's own thread, which Django would take, ends with the view.

    A stream, and the task that watches it, live longer than that; what they ask of the ended thread never comes back.
    """
    return database_sync_to_async(function, thread_sensitive=False)
