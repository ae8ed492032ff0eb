"""The likeliest tokens of each row, and the mass of all: with torch anywhere, or by native.c.

Sums of floats round differently with the shape of the batch, so probability mass is counted in whole units of 2**-42 of
the likeliest token: sums of integers are exact in any order. A token less likely than one unit weighs nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

UNITS = 2.0**42  # integer mass of the likeliest token: room for 2**21 tokens in an int64
BLOCK = 64  # neighbouring tokens of which only the likeliest is looked at first
ROWS_AT_ONCE = 4


class Leading(NamedTuple):
    """Of some rows the likeliest tokens, the likeliest first, the lowest id first among equals.

    Which of the equals at the lower end are in is open. A row is broken where its largest score is not finite or some
    are NaN: its mass is 0, and the rest of it says nothing.
    """

    values: Tensor  # float[rows, size]: the scores, less the row's largest, over its temperature
    weights: Tensor  # float[rows, size]: e to that power
    ids: Tensor  # int64[rows, size]
    mass: Tensor  # int64[rows]: of all tokens, in units

    @property
    def sound(self) -> Tensor:
        """bool[rows]"""
        return self.mass > 0


def leading(scores: Tensor, temperature: Tensor, size: int, native: Any = None) -> Leading:
    """The `size` likeliest tokens, or all where there are fewer, of `scores`, float[rows, vocab].

    `temperature` is float[rows]. `native` are the kernels to use, if any, for scores in a dtype that they know.
    """
    find = native.leading.get(scores.dtype) if native else None
    if find is None or size >= scores.shape[-1]:
        found = [_leading(scores[part], temperature[part], size) for part in parts(scores)]
        return Leading(*map(torch.cat, zip(*found, strict=True)))
    rows, vocab = scores.shape
    values, weights = torch.empty(2, rows, size, dtype=torch.float32)
    ids, mass = torch.empty(rows, size, dtype=torch.int64), torch.empty(rows, dtype=torch.int64)
    find(rows, vocab, size, scores.contiguous(), temperature.float(), values, weights, ids, mass)
    return Leading(values, weights, ids, mass)


def _leading(scores: Tensor, temperature: Tensor, size: int) -> Leading:
    if scores.dtype != torch.float64:
        scores = scores.float()
    largest = scores.amax(-1, keepdim=True)
    scaled = (scores - largest).div_(temperature[:, None])
    values, ids = likeliest(scaled, size)
    mass = units_of(scaled.exp()).sum(-1).where(largest.squeeze(-1).isfinite(), 0)
    return Leading(values, values.exp(), ids, mass)


def parts(rows: Tensor) -> list[slice]:
    """Few rows at a time on a CPU: what is computed for a whole vocabulary then stays in its cache."""
    at_once = ROWS_AT_ONCE if rows.device.type == "cpu" else len(rows)
    return [slice(start, start + at_once) for start in range(0, len(rows), at_once)]


def units_of(weights: Tensor) -> Tensor:
    return (weights * UNITS).long()


def likeliest(scaled: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The `size` largest of each row, equals by id; which of the equals at the lower end are in is open."""
    if size >= scaled.shape[-1]:
        values, ids = torch.sort(scaled, dim=-1, descending=True, stable=True)
        return values, ids
    among = _candidates(scaled, size)
    part = scaled if among is None else scaled.gather(-1, among)
    ids = part.topk(size, dim=-1, sorted=False).indices
    ids = (ids if among is None else among.gather(-1, ids)).sort(-1).values
    values, order = torch.sort(scaled.gather(-1, ids), dim=-1, descending=True, stable=True)
    return values, ids.gather(-1, order)


def _candidates(scaled: Tensor, size: int) -> Tensor | None:
    """Ids among which the `size` largest of each row are: those of the blocks with the largest tops. None: all are."""
    blocks = scaled.shape[-1] // BLOCK
    if blocks <= 2 * size:
        return None
    even = scaled[:, : blocks * BLOCK].unflatten(-1, (blocks, BLOCK))
    chosen = even.amax(-1).topk(size, dim=-1, sorted=False).indices
    ids = (chosen[..., None] * BLOCK + torch.arange(BLOCK, device=scaled.device)).flatten(1)
    rest = torch.arange(blocks * BLOCK, scaled.shape[-1], device=scaled.device)
    return torch.cat([ids, rest.expand(len(scaled), -1)], dim=-1) if len(rest) else ids
