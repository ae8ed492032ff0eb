"""The database from asynchronous code, for what someone waits for: one thread, which keeps its connection to SQLite.

Opening SQLite anew for every call, as Channels' `database_sync_to_async` does, takes longer than most calls themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

from django.db import DatabaseError, IntegrityError, connection, connections, transaction

P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE = 8  # that share a transaction: more of them would wait for the last

_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")


async def in_database(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """`function` in the thread, from any loop. It must be short: all others wait for it."""
    context = contextvars.copy_context()
    call = lambda: context.run(keeping_connection, function, *args, **kwargs)  # noqa: E731
    return await asyncio.get_running_loop().run_in_executor(_thread, call)


def keeping_connection(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a thread that lives on, and so does its connection to SQLite."""
    _release()
    try:
        return function(*args, **kwargs)
    finally:
        _release()


def _release() -> None:
    """Close what is broken or has served its time, which for SQLite, a file of this machine, never comes."""
    for each in connections.all(initialized_only=True):
        if each.vendor == "sqlite":
            each.close_at = None
        each.close_if_unusable_or_obsolete()


async def unless_left(making: Awaitable[T], give_back: Callable[[T], object]) -> T:
    """What `making` gives. Where the caller leaves meanwhile it goes on, and what it gives is given back."""
    made = asyncio.ensure_future(making)
    try:
        return await asyncio.shield(made)
    except asyncio.CancelledError:
        made.add_done_callback(lambda _: None if made.cancelled() or made.exception() else give_back(made.result()))
        raise


# ---- what comes at the same time ----


@dataclass(frozen=True, eq=False)
class _Call:
    """What to do, who waits for it, and on which loop."""

    work: Callable[[], Any]
    answer: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


_Outcome = tuple[_Call, Any, BaseException | None]
_calls: deque[_Call] = deque()
_asked = threading.Event()  # while the thread is going to look at them


async def in_transaction(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """`in_database`, in a transaction. Where one raises, what it has changed is undone, and nothing else.

    Those that come together, or while the thread is busy, share one transaction: to SQLite a commit is as much work as
    what it commits, and who is told together goes on together. Elsewhere each has its own, since rows that several of
    them lock would be locked crosswise. When a shared one is refused at its commit, each is made again, in one of its
    own; so `function` changes nothing but the database.
    """
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()
    call = _Call(partial(context.run, function, *args, **kwargs), loop.create_future(), loop)
    _calls.append(call)
    loop.call_soon(_ask)  # behind all that is ready now
    return await call.answer


def _ask() -> None:
    """Have the thread look at the calls that wait, once for all of them."""
    if not _calls or _asked.is_set():
        return
    _asked.set()
    try:
        _thread.submit(_take_calls)
    except RuntimeError as error:  # the process ends
        _asked.clear()
        _answer([(_calls.popleft(), None, error) for _ in range(len(_calls))])


def _take_calls() -> None:
    _asked.clear()  # before looking: who comes from now on asks again
    most = AT_ONCE if connection.vendor == "sqlite" else 1
    taken = [_calls.popleft() for _ in range(min(most, len(_calls)))]
    _ask()  # for those that are left
    if calls := [call for call in taken if not call.answer.done()]:
        _answer(_outcomes(calls))


def _answer(outcomes: list[_Outcome]) -> None:
    for loop in {call.loop for call, _, _ in outcomes}:
        with contextlib.suppress(RuntimeError):  # it is gone, and who waited with it
            loop.call_soon_threadsafe(_tell, [outcome for outcome in outcomes if outcome[0].loop is loop])


def _outcomes(calls: list[_Call]) -> list[_Outcome]:
    try:
        return keeping_connection(_together, calls)
    except IntegrityError as error:  # what one of them broke must not keep the others from theirs
        if len(calls) > 1:
            return [outcome for call in calls for outcome in _outcomes([call])]
        return [(calls[0], None, error)]
    except BaseException as error:  # whatever it is, nobody may wait for ever
        return [(call, None, error) for call in calls]


def _together(calls: list[_Call]) -> list[_Outcome]:
    with transaction.atomic():
        if len(calls) == 1:
            return [(calls[0], calls[0].work(), None)]
        outcomes = [_apart(call) for call in calls]
        if transaction.get_rollback():  # one could not be undone alone
            raise next((error for _, _, error in outcomes if error), DatabaseError("The transaction was given up."))
    return outcomes


def _apart(call: _Call) -> _Outcome:
    try:
        with transaction.atomic():
            return call, call.work(), None
    except Exception as error:
        return call, None, error


def _tell(outcomes: list[_Outcome]) -> None:
    for call, result, error in outcomes:
        if call.answer.done():
            continue
        if error is not None:
            call.answer.set_exception(error)
        else:
            call.answer.set_result(result)
