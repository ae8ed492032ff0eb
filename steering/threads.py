"""Work of a request that waits, beside the loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, cast

from channels.db import database_sync_to_async

from steering import shared
from steering.database import in_database, in_transaction

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """`function` on any thread of the pool. The request's own thread, which Django would take, ends with the view.

    A stream, and the task that watches it, live longer than that; what they ask of the ended thread never comes back.
    """
    return database_sync_to_async(function, thread_sensitive=False)


def in_turn(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The same for what is short and asked often: where one process does everything, on the thread that keeps its
    connection, one after another, since to open one takes longer than most of this."""
    return _or_pooled(in_database, function)


def in_company(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """`in_turn` for what may be undone whole where it raises: those that come together share a transaction there."""
    return _or_pooled(in_transaction, function)


def _or_pooled(
    kept: Callable[..., Coroutine[Any, Any, Any]], function: Callable[P, T]
) -> Callable[P, Coroutine[Any, Any, T]]:
    async def called(*args: P.args, **kwargs: P.kwargs) -> T:
        if shared.enabled():
            return await in_thread(function)(*args, **kwargs)
        return cast(T, await kept(function, *args, **kwargs))

    return called
