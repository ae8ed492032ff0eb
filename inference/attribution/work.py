"""A job on its way: small steps are taken until a slice is over, and then it says how far it is."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from inference.attribution.walk import Steps, Walker
from inference.models.plain import Opening, borrowed
from inference.types import JobRequest, Progress, Result

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

SLICE_SECONDS = 0.04
OPENING_SECONDS = 0.005
FLOAT32_BYTES = 4 * 2**30  # the most that a view in float32 may take on a CPU
T = TypeVar("T")
Paced = Generator[Progress | Result, Any, T]


class Work:
    """`total` is in the walker's passes and may grow as more becomes known; `facts` are the latest for a page."""

    def __init__(self, model: LoadedModel, job: JobRequest):
        self.model, self.job = model, job
        self.total = 1
        self.facts: dict[str, Any] = {}
        self.started = self._turn = time.monotonic()
        self._seq = count()

    def progress(self, note: str, done: int = 0) -> Progress:
        elapsed = time.monotonic() - self.started
        done = min(done, self.total)
        eta = round(elapsed / done * (self.total - done), 1) if done else None
        return Progress(self.job.id, next(self._seq), done, self.total, note, eta, dict(self.facts))

    def result(self, payload: dict[str, Any]) -> Result:
        return Result(self.job.id, next(self._seq), payload)

    def paced(self, walker: Walker, steps: Steps[T], note: str) -> Paced[T]:
        """Take steps; what they return at their end."""
        self._turn = time.monotonic()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value
            if time.monotonic() - self._turn >= SLICE_SECONDS:
                yield self.progress(note, walker.passes)
                self._turn = time.monotonic()


def holding(model: LoadedModel) -> AbstractContextManager[Opening]:
    """The differentiable view, kept for as long as the job runs."""
    return borrowed(model, dtype=dtype_of(model))


def opened(work: Work, opening: Opening) -> Paced[Walker]:
    """A walker over the view, once it is there."""
    while not opening.wait(OPENING_SECONDS):
        yield work.progress("Opening a copy of the model that can be differentiated")
    walker = Walker(opening.view)
    yield from work.paced(walker, walker.check(), "Looking at the model")
    return walker


def dtype_of(model: LoadedModel) -> torch.dtype:
    """float32 on a CPU, where differences of two runs would otherwise drown in rounding, unless it takes too much."""
    if model.device.type != "cpu" or model.dtype == torch.float64:
        return model.dtype
    size = 4 * sum(p.numel() for p in model.hf.parameters())
    return torch.float32 if size <= FLOAT32_BYTES else model.dtype
