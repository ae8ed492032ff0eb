"""Reading texts that are given: prompts once, then several texts after each, in slices of a few tokens.

A given text is read as the rows of the engine's batch are written: its tokens count as generated, its prompt's as
prompt, and every row has its own edits.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.batch import Batch, Row
from inference.cache import round_up
from inference.interventions import Bank, Step

TOKENS_PER_SLICE = {"cuda": 4096}
TOKENS_PER_SLICE_CPU = 64  # well under 0.1 s of the default model on two cores
CELLS = {"cuda": 65536}  # tokens of the cache that a group may fill
CELLS_CPU = 2048
MAX_ROWS = {"cuda": 128}
MAX_ROWS_CPU = 16


@dataclass(frozen=True, eq=False)
class Given:
    """A text after the prompt of `row`. All of `tokens` but the last are read: that one is only foretold."""

    row: Row
    tokens: list[int]

    @property
    def read(self) -> int:
        return len(self.tokens) - 1

    @property
    def longest(self) -> int:
        return self.row.prompt_length + self.read


class Forced(Batch):
    """One group of prompts at a time: `begin`, then `read` until it is true, then any number of `follow`."""

    @property
    def budget(self) -> int:
        return TOKENS_PER_SLICE.get(self.model.device.type, TOKENS_PER_SLICE_CPU)

    def begin(self, rows: Sequence[Row]) -> None:
        """Those that are read alike are read once. What was read before is forgotten; its buffers serve again."""
        self.rows = []
        self._everyone = rows
        self.join(rows)
        self._place = {row.reading: place for place, row in enumerate(self.rows)}

    @torch.inference_mode()
    def read(self) -> bool:
        """Read the next slice of the prompts; whether all are read."""
        self._advance(self.rows, self.budget)
        done = len(self._group_logits) == len(self.rows)
        if done:
            self.settle()
            for row in self._everyone:
                row.decide()
        return done

    def logits(self, row: Row) -> Tensor:
        """float[vocab] after the prompt."""
        return self._group_logits[self.rows[self._place[row.reading]]]

    def follow(self, texts: Sequence[Given]) -> Iterator[tuple[int, Tensor]]:
        """Read `texts`, a few tokens of each at a time.

        Yields where the slice starts and logits [texts, t, vocab]: those at [i, j] foretell token start + j + 1 of
        text i. What lies behind the end of a text means nothing.
        """
        places = slice(len(self.rows), len(self.rows) + len(texts))
        self._bring(texts, places)
        edits = [text.row.edits for text in texts]
        bank = Bank(edits, self.model.device, self.model.compute_dtype) if any(edits) else None
        longest, step = max(text.read for text in texts), max(1, self.budget // len(texts))
        for start in range(0, longest, step):
            yield start, self._slice(texts, places, start, min(start + step, longest), bank)

    @torch.inference_mode()
    def _bring(self, texts: Sequence[Given], places: slice) -> None:
        for place, text in enumerate(texts, places.start):
            self.cache.copy(self._place[text.row.reading], slice(place, place + 1), text.row.prompt_length)

    @torch.inference_mode()
    def _slice(self, texts: Sequence[Given], places: slice, start: int, stop: int, bank: Bank | None) -> Tensor:
        device = self.model.device
        fed = [text.tokens[start : min(stop, text.read)] for text in texts]
        ids = torch.tensor([(tokens + [0] * stop)[: stop - start] for tokens in fed], device=device)
        offsets = torch.arange(start, stop, device=device)[None]
        positions = torch.tensor([[text.row.prompt_length] for text in texts], device=device) + offsets
        real = offsets < torch.tensor([[text.read] for text in texts], device=device)
        visible = round_up(max(text.row.prompt_length for text in texts) + stop)
        self.cache.scatter(places, positions, visible)
        step = Step(positions, torch.zeros_like(real), self._special[ids], real)
        owners = torch.arange(places.start, places.stop, device=device)
        return self._forward(ids, step, visible, bank, owners, torch.arange(stop - start, device=device))


def groups(rows: Sequence[Row], device: str) -> Iterator[list[Row]]:
    """Rows whose prompts are read together, longest first; those that are read alike stay together."""
    alike: dict[Hashable, list[Row]] = {}
    for row in sorted(rows, key=lambda row: -row.prompt_length):
        alike.setdefault(row.reading, []).append(row)
    cells, most = CELLS.get(device, CELLS_CPU), MAX_ROWS.get(device, MAX_ROWS_CPU)
    waiting = list(alike.values())
    while waiting:
        fit = min(most, max(1, cells // waiting[0][0].prompt_length))
        yield [row for same in waiting[:fit] for row in same]
        waiting = waiting[fit:]


def batches(texts: Sequence[Given], device: str, context: int, each: int = 1) -> Iterator[list[Given]]:
    """Texts that are read together, longest first; `each` that follow one another stay together."""
    cells, most = CELLS.get(device, CELLS_CPU), MAX_ROWS.get(device, MAX_ROWS_CPU)
    units = [list(texts[i : i + each]) for i in range(0, len(texts), each)]
    units.sort(key=lambda unit: -unit[0].read)
    batch: list[Given] = []
    for unit in units:
        grown = batch + unit
        prompt, read = max(t.row.prompt_length for t in grown), max(t.read for t in grown)
        fits = len(grown) <= most and len(grown) * (prompt + read) <= cells and prompt + read <= context
        if batch and not fits:
            yield batch
            grown = unit
        batch = grown
    if batch:
        yield batch
