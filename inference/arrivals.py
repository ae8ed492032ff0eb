"""Requests that are being admitted, so on their way to the engine: an idle one need not begin with the first of many.

A prompt that is read alone takes a quarter of what six take together, and those that come meanwhile stand behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_announced: set[object] = set()


@contextmanager
def announced() -> Iterator[None]:
    """Around what is done with a request before `Inference.generate`. On any thread."""
    token = object()
    _announced.add(token)
    try:
        yield
    finally:
        _announced.discard(token)


def expected() -> int:
    """How many are announced. One may have come before its announcement ends."""
    return len(_announced)
