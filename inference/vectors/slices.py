"""How texts share forward passes, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from inference.vectors.spans import Reading

TOKENS_PER_SLICE = {"cuda": 4096}  # padding included
TOKENS_PER_SLICE_CPU = 96  # about 0.1 s of the default model on two cores


def slices(readings: Sequence[Reading], device: torch.device) -> Iterator[list[int]]:
    """Texts of each forward pass, longest first; a text beyond the budget is a slice of its own."""
    budget = TOKENS_PER_SLICE.get(device.type, TOKENS_PER_SLICE_CPU)
    order = sorted(range(len(readings)), key=lambda i: (-len(readings[i].ids), i))
    while order:
        fit = max(1, budget // len(readings[order[0]].ids))
        yield order[:fit]
        order = order[fit:]


def pad(readings: Sequence[Reading], texts: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
    """(int64[n, t] padded on the right with 0, lengths)."""
    rows = [torch.tensor(readings[i].ids) for i in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), [len(row) for row in rows]


class Estimate:
    """Seconds left, at the speed in tokens seen so far."""

    def __init__(self, readings: Sequence[Reading]):
        self.sizes = [len(r.ids) for r in readings]
        self.total = sum(self.sizes)
        self.done = 0

    def after(self, texts: Sequence[int], elapsed: float) -> float:
        self.done += sum(self.sizes[i] for i in texts)
        return round(elapsed / self.done * (self.total - self.done), 1)
