"""The one place that turns settings into an inference client, and the event loop on which that client is used.

Runs and jobs outlive the request or socket that began them, so they live on a loop of their own, in one daemon thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import logging
import threading
import time
from collections.abc import Coroutine
from contextlib import aclosing
from functools import lru_cache
from typing import Any, TypeVar

from asgiref.sync import AsyncToSync, SyncToAsync
from django.conf import settings

from inference.client import Inference, connect
from inference.errors import EngineFault, InferenceError, Unavailable, from_wire
from inference.types import Failed, JobRequest, ModelInfo, Result
from steering.metered import metered

log = logging.getLogger(__name__)

SERVED_SECONDS = 0.1

T = TypeVar("T")

_connecting = threading.Lock()
_inference: Inference | None = None
_problem: str = ""
_served: tuple[Inference | None, float, tuple[ModelInfo, ...]] = (None, 0.0, ())


def inference() -> Inference:
    """The process-wide client, opened on first use. Its methods must be awaited on `loop()`.

    Raises InferenceError when the settings name nothing that can be opened.
    """
    global _inference, _problem
    with _connecting:
        if _inference is None:
            try:
                client = connect(settings.INFERENCE_URL, data_dir=settings.DATA_DIR, dtype=settings.STEERBOARD_DTYPE)
                _inference = metered(client)
            except InferenceError as error:
                _problem = error.message
                raise
        return _inference


async def opened() -> Inference:
    """`inference()`, without keeping the loop waiting while it is opened for the first time."""
    return await asyncio.to_thread(inference) if _inference is None else _inference


def set_inference(client: Inference | None) -> None:
    """Use `client` from now on; None opens a new one on next use. For tests."""
    global _inference, _problem
    with _connecting:
        _inference, _problem = metered(client) if client else None, ""


@lru_cache(maxsize=1)
def loop() -> asyncio.AbstractEventLoop:
    """The loop on which runs and jobs live, started on first use."""
    own = asyncio.new_event_loop()
    threading.Thread(target=own.run_forever, name="steering-loop", daemon=True).start()
    return own


def submit(coro: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
    """Run `coro` on the loop, in the caller's context but for the caller's thread.

    Django gives each request a thread for its queries, and what it starts would go on to ask for that thread: in vain
    once the request has ended, and for ever while the request waits for the answer in it.
    """
    return _context().run(asyncio.run_coroutine_threadsafe, coro, loop())


async def joined(coro: Coroutine[Any, Any, T]) -> T:
    """What `coro` returns, which runs on the loop as with `submit`, from any loop; leaving ends it.

    Where pages are served on that loop too, it is not called from outside, which costs a system call there and back.
    """
    if asyncio.get_running_loop() is loop():
        return await asyncio.get_running_loop().create_task(coro, context=_context())
    return await asyncio.wrap_future(submit(coro))


def _context() -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(_forget_thread)
    return context


def _forget_thread() -> None:
    """The three places in which asgiref remembers where synchronous code is to run."""
    AsyncToSync.executors.current = None
    SyncToAsync.thread_sensitive_context.set(None)  # type: ignore[arg-type]
    SyncToAsync.deadlock_context.set(False)


def spawn(coro: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
    """Start `coro` on the loop and return at once. What it raises is logged, and kept in the future."""
    future = submit(coro)
    future.add_done_callback(_log_failure)
    return future


def _log_failure(future: concurrent.futures.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()):
        log.error("Background work failed", exc_info=error)


def call(coro: Coroutine[Any, Any, T], timeout: float = 10) -> T:
    """Run `coro` on the loop and wait for it, from synchronous code.

    Raises what it raises, and Unavailable("no_answer") after `timeout` seconds.
    """
    future = submit(coro)
    try:
        return future.result(timeout)
    except concurrent.futures.TimeoutError:
        if future.done():  # the coroutine's own TimeoutError, not ours
            raise
        future.cancel()
        raise Unavailable(
            "no_answer", f"The model did not answer within {timeout:g} s. Try again in a moment.", retry_after=5
        ) from None


async def result_of(request: JobRequest) -> dict[str, Any]:
    """The payload of a small job that somebody waits for; it is charged to nobody. Raises InferenceError."""
    client = await opened()
    async with aclosing(client.run(request)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Failed):
                raise from_wire(event.to_wire())
            if isinstance(event, Result):
                return event.payload
    raise EngineFault("no_result", "The model side stopped without a result. Try again.")


def warm_up() -> None:
    """Begin to open the client in the background; a failure is logged and shown by `model_info`."""
    if _inference is None and not _connecting.locked():
        threading.Thread(target=_open_quietly, name="connect", daemon=True).start()


def _open_quietly() -> None:
    try:
        inference()
    except InferenceError as error:
        log.error("The model could not be opened: %s", error.message)


def model_info(timeout: float = 2, model: str = "") -> ModelInfo:
    """A served model as it is now, the default one unless named. Never raises: trouble is a state of the answer."""
    client = _inference
    if client is None:
        if not _problem:
            warm_up()
        return ModelInfo("failed" if _problem else "loading", id="", problem=_problem)
    try:
        return call(client.describe(model), timeout)
    except InferenceError as error:
        return ModelInfo("failed", id="", problem=error.message)


def models(timeout: float = 2) -> tuple[ModelInfo, ...]:
    """What is served now; nothing while that cannot be known. Never raises."""
    client = _inference
    if client is None:
        return ()
    try:
        return call(client.models(), timeout)
    except InferenceError:
        return ()


def served(timeout: float = 5) -> tuple[ModelInfo, ...]:
    """What was served a moment ago: of many who ask at once, one waits for the loop. Raises InferenceError."""
    global _served
    client, (of, at, found) = inference(), _served
    if of is not client or time.monotonic() - at > SERVED_SECONDS:
        found = call(client.models(), timeout)
        if any(info.state != "ready" for info in found):
            return found
        _served = client, time.monotonic(), found
    return found


def close(timeout: float = 10) -> None:
    """End the client, if one was opened. Python must not end while an engine is on its way: threads would abort it."""
    client = _inference
    if client is not None:
        call(client.close(), timeout)
        set_inference(None)
