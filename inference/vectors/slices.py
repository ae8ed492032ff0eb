"""How texts share forward passes, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import torch

from inference.vectors.spans import Reading

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

# Tokens that one slice reads at most, unless a single text has more. On a CPU a slice of the default model then takes
# about 0.1 s on two cores beside other work; 0.2 s where nobody waits for a token, which is up to a fifth faster.
CUDA_TOKENS = 4096
BUSY_TOKENS = {torch.bfloat16: 192}
OTHER_BUSY_TOKENS, IDLE_TOKENS = 96, 256
PAUSING_TOKENS = 512  # where others go on between its layers, so that they wait no longer for it


@dataclass(frozen=True)
class Part:
    """One text of a slice. It is read from `start` on; its tokens before are those of the text before it."""

    text: int
    start: int


def budget(model: LoadedModel, *, padded: bool, pausing: bool = False) -> int:
    """Tokens of the next slice. It decides nothing but the time: padded texts, whose last bits may depend on their
    neighbours, always get the same. `pausing`: whoever reads stops on the way, as `stops` says."""
    if model.device.type == "cuda":
        return CUDA_TOKENS
    idle = PAUSING_TOKENS if pausing else IDLE_TOKENS
    return idle if model.idle and not padded else _busy(model)


def stops(model: LoadedModel, layers: int, tokens: int) -> range:
    """After how many of `layers` a pass over `tokens` lets others go on, so that none waits longer than for a busy
    slice, or for one layer."""
    if model.device.type == "cuda":
        return range(0)
    parts = -(-tokens // _busy(model))
    return range(0, layers, max(1, -(-layers // parts)))[1:]


def _busy(model: LoadedModel) -> int:
    return BUSY_TOKENS.get(model.dtype, OTHER_BUSY_TOKENS)


def shared(readings: Sequence[Reading]) -> list[Part]:
    """All texts in an order that puts like beginnings side by side, the longest first and then round.

    A token that is to be pooled is always read, and so is the last one.
    """
    order = sorted(range(len(readings)), key=lambda i: readings[i].ids)
    longest = max(range(len(order)), key=lambda at: len(readings[order[at]].ids))
    order = order[longest:] + order[:longest]
    starts = [0, *(_alike(readings[a], readings[b]) for a, b in pairwise(order))]
    return [Part(text, start) for text, start in zip(order, starts, strict=True)]


def whole(readings: Sequence[Reading]) -> list[Part]:
    """All texts, longest first, each from its beginning."""
    return [Part(i, 0) for i in sorted(range(len(readings)), key=lambda i: (-len(readings[i].ids), i))]


def slices(
    readings: Sequence[Reading], parts: Sequence[Part], tokens: Callable[[], int], *, padded: bool
) -> Iterator[list[Part]]:
    """Parts of each forward pass, in order; `tokens` is asked for each, and holds the padding where there is any."""
    rest = list(parts)
    while rest:
        most = tokens()
        sizes = [len(readings[part.text].ids) - part.start for part in rest[:most]]
        sums = accumulate(sizes[:1] * len(sizes) if padded else sizes)
        fit = max(1, sum(size <= most for size in sums))
        yield rest[:fit]
        rest = rest[fit:]


def _alike(before: Reading, reading: Reading) -> int:
    most = min(len(before.ids), reading.positions[0], len(reading.ids) - 1)
    return next((i for i in range(most) if before.ids[i] != reading.ids[i]), most)


class Estimate:
    """Seconds left, at the speed in tokens seen so far."""

    def __init__(self, readings: Sequence[Reading], parts: Sequence[Part]):
        self.sizes = {part: len(readings[part.text].ids) - part.start for part in parts}
        self.total = sum(self.sizes.values())
        self.done = 0

    def tokens(self, parts: Sequence[Part]) -> int:
        return sum(self.sizes[part] for part in parts)

    def after(self, parts: Sequence[Part], elapsed: float) -> float:
        self.done += self.tokens(parts)
        return round(elapsed / self.done * (self.total - self.done), 1)
