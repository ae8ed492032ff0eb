"""Where a call is made: at the server, or by a model in this process. Decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from steerboard._core import Core
from steerboard._wire import Emit, Flow, Invoke


def local_call(core: Core, module: str, name: str) -> Callable[..., Any] | None:
    """What answers `module.name` in this process, or None where the server does."""
    return None


def emitted(work: Callable[[], Iterable[Any]]) -> Flow:
    """A stream out of a plain iterator that blocks."""
    things: Iterator[Any] = yield Invoke(lambda: iter(work()))
    end = object()
    while (thing := (yield Invoke(lambda: next(things, end)))) is not end:
        yield Emit(thing)
