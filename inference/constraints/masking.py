"""The masks of a step, laid over the logits of the constrained rows alone: with torch anywhere, or by native.c."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inference.constraints.row import allowed_next
from inference.sampling import NO_TOKEN, sample

if TYPE_CHECKING:
    from inference.batch import Row
    from inference.drafts import Line
    from inference.models.kernels import Kernels

_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
_BYTES = np.where(_BITS, np.float32(np.inf), np.float32(-np.inf))  # the ceilings of eight tokens, by their byte


def choose(rows: Sequence[Row | Line], logits: Tensor, native: Kernels | None = None) -> Tensor:
    """`sample` for rows that may be constrained; int64[rows].

    A greedy row first takes what the model likes best. Where its constraint allows that, no mask would change it.
    """
    states = [row.state for row in rows]
    free = {i: row.constraint for i, row in enumerate(rows) if row.constraint is not None and row.state.greedy}
    with masked(rows, logits, native, but=free):
        tokens = sample(logits, states, native)
    liked = tokens.tolist() if free else []
    wrong = [i for i, own in free.items() if liked[i] == NO_TOKEN or not own.allows(liked[i])]
    if wrong:
        some = logits[wrong]
        forbid(some, range(len(wrong)), allowed_next([free[i] for i in wrong], logits.shape[-1]), native)
        tokens[wrong] = sample(some, [states[i] for i in wrong], native)
    return tokens


@contextmanager
def masked(
    rows: Sequence[Row | Line], logits: Tensor, native: Kernels | None = None, but: Collection[int] = ()
) -> Iterator[None]:
    """Within, constrained rows of `logits`, float[rows, vocab], hold -inf where their constraint forbids a token.

    Other rows are not touched, and neither are those in `but`. Afterwards the rows that are asked for log-probabilities
    hold the model's own again. `native` are the kernels to use, if any, for logits in a dtype that they know.
    """
    bound = {i: row.constraint for i, row in enumerate(rows) if row.constraint is not None and i not in but}
    if not bound:
        yield
        return
    own = [(i, logits[i].clone()) for i in bound if rows[i].state.params.logprobs]
    forbid(logits, list(bound), allowed_next(list(bound.values()), logits.shape[-1]), native)
    yield
    for i, values in own:
        logits[i] = values


def forbid(logits: Tensor, which: Sequence[int], allowed: np.ndarray, native: Kernels | None = None) -> None:
    """-inf, but for NaN, in rows `which` of `logits`, float[rows, vocab], where `allowed` has no bit.

    `allowed` is int32[len(which), words], see `allowed_next`.
    """
    lay = native.forbid.get(logits.dtype) if native and logits.is_contiguous() else None
    if lay is not None:
        vocab, words = logits.shape[-1], allowed.shape[-1]
        return lay(len(which), vocab, words, torch.tensor(which), torch.from_numpy(allowed), logits)
    ceilings = np.take(_BYTES, allowed.view(np.uint8), axis=0).reshape(len(which), -1)[:, : logits.shape[-1]]
    for i, ceiling in zip(which, torch.from_numpy(ceilings).to(logits.device), strict=True):
        torch.minimum(logits[i], ceiling, out=logits[i])  # a masked_fill stumbles over every bit of a ragged mask
