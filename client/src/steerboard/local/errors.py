"""Refusals of the model side under the names that a server's have."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from steerboard.errors import APIError, NotFoundError, OverloadedError, SteerboardError, ValidationError

P = ParamSpec("P")
T = TypeVar("T")
KINDS: dict[str, type[SteerboardError]] = {
    "invalid_request": ValidationError,
    "not_found": NotFoundError,
    "busy": OverloadedError,
}


def ours(error: Any) -> SteerboardError:
    kind = KINDS.get(error.kind, APIError)
    return kind(error.message, code=error.code, retry_after=error.retry_after)


@contextmanager
def told() -> Iterator[None]:
    """Raises an InferenceError that comes out of it as one of ours."""
    from inference.errors import InferenceError

    try:
        yield
    except InferenceError as error:
        raise ours(error) from error


def tells(work: Callable[P, T]) -> Callable[P, T]:
    """The same around a function."""

    @functools.wraps(work)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        with told():
            return work(*args, **kwargs)

    return checked
