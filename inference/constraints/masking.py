"""The masks of a step: those of all constrained rows are computed together and laid over their logits alone."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inference.constraints.row import RowConstraint, forbidden, words

if TYPE_CHECKING:
    from inference.batch import Row
    from inference.drafts import Line

_ALONE = 4  # so few masks are not worth waking threads for


@contextmanager
def masked(rows: Sequence[Row | Line], logits: Tensor) -> Iterator[None]:
    """Within, constrained rows of `logits`, float[rows, vocab], hold -inf where their constraint forbids a token.

    Other rows are not touched. Afterwards the rows that are asked for log-probabilities hold the model's own again.
    """
    bound = [(i, row.constraint) for i, row in enumerate(rows) if row.constraint is not None]
    if not bound:
        yield
        return
    own = [(i, logits[i].clone()) for i, _ in bound if rows[i].state.params.logprobs]
    hidden = torch.from_numpy(_forbidden([constraint for _, constraint in bound], logits.shape[-1])).to(logits.device)
    for (i, _), hide in zip(bound, hidden, strict=True):
        logits[i].masked_fill_(hide, -torch.inf)
    yield
    for i, values in own:
        logits[i] = values


def _forbidden(constraints: Sequence[RowConstraint], vocab_size: int) -> np.ndarray:
    """bool[constraints, vocab]"""
    bits = np.zeros((len(constraints), words(vocab_size)), dtype=np.int32)
    if len(constraints) <= _ALONE:
        for constraint, row in zip(constraints, bits, strict=True):
            constraint.matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
    else:
        matchers = [(constraint.matcher, i) for i, constraint in enumerate(constraints)]
        _executor().unsafe_compute_mask_ptr(matchers, bits.ctypes.data, bits.shape[1] * 4, len(bits))
    for constraint, row in zip(constraints, bits, strict=True):
        constraint.settle(row)
    return forbidden(bits, vocab_size)


@functools.cache
def _executor() -> Any:
    from llguidance import LLExecutor

    return LLExecutor(num_threads=min(os.cpu_count() or 1, 8))
