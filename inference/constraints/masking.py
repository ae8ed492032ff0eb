"""The masks of a step, laid over the logits of the constrained rows alone.

They are computed one after another: threads of llguidance's would wait for those of the matrix products, which spin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inference.constraints.row import RowConstraint, words

if TYPE_CHECKING:
    from inference.batch import Row
    from inference.drafts import Line

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_BYTES = np.where(_BITS, np.float32(np.inf), np.float32(-np.inf))  # the ceilings of eight tokens, by their byte


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
    ceilings = torch.from_numpy(_ceilings([constraint for _, constraint in bound], logits.shape[-1])).to(logits.device)
    for (i, _), ceiling in zip(bound, ceilings, strict=True):
        torch.minimum(logits[i], ceiling, out=logits[i])  # a masked_fill stumbles over every bit of a ragged mask
    yield
    for i, values in own:
        logits[i] = values


def _ceilings(constraints: Sequence[RowConstraint], vocab_size: int) -> np.ndarray:
    """float32[constraints, vocab]: infinity where a token is allowed, -infinity where not."""
    bits = np.zeros((len(constraints), words(vocab_size)), dtype=np.int32)
    for constraint, row in zip(constraints, bits, strict=True):
        constraint.matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
        constraint.settle(row)
    return np.take(_BYTES, bits.view(np.uint8), axis=0).reshape(len(bits), -1)[:, :vocab_size]
