"""The engine's batch with vLLM's passes: which rows are read or written together is for vLLM to say."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inference.batch import Batch, Choice, Row, prompt_details, share_readings
from inference.interventions import Bank, Step
from inference.vllm.core import Span
from inference.vllm.stream import Lines, steered_rows

if TYPE_CHECKING:
    from inference.vllm.model import VllmModel

_names = itertools.count()


class VllmBatch(Batch):
    """Rows join at once and are read while others write; `decoding` counts them all. One batch at a time has a core."""

    model: VllmModel

    def __init__(self, model: VllmModel):
        super().__init__(model)
        self._core = model.core
        self._core.listener = self
        self._names: dict[Row, str] = {}
        self._rows: dict[str, Row] = {}
        self._reading: dict[Row, Bank | None] = {}  # rows whose prompt is being read, each with its edits
        self._writing: list[Row] = []  # whose edits `_bank` holds
        self._steered: list[Tensor] = []  # of its sites, the rows with an edit there
        self._spans: Sequence[Span] = ()
        self._choices: list[Choice] = []

    def has_room(self, row: Row) -> bool:
        """Whether the cache has pages for all that the rows and this one may come to hold, so that none is put off."""
        pages = sum(math.ceil(r.longest / self._core.page) for r in (*self.rows, row))
        return pages <= self._core.pages

    def join(self, rows: Sequence[Row]) -> None:
        for row in rows:
            share_readings([row])
            self._reading[row] = self._make_bank([row])
            name = self._names[row] = str(next(_names))
            self._rows[name] = row
            self.rows.append(row)
            self._core.add(name, row.tokens, max(row.state.params.max_tokens, 1))
        self.decoding = len(self.rows)

    @torch.inference_mode()
    def step(self) -> list[Choice]:
        """One pass: a chunk of the prompts of some rows, a token for each of the others."""
        self._choices = []
        self._core.step()
        return self._choices

    @torch.inference_mode()
    def drop(self, row: Row) -> None:
        self.settle()
        self.rows.remove(row)
        self.decoding = len(self.rows)
        self._reading.pop(row, None)
        name = self._names.pop(row)
        del self._rows[name]
        self._core.remove([name])

    @torch.inference_mode()
    def settle(self) -> None:
        super().settle()
        for bank in self._reading.values():
            if bank:
                bank.settle()

    def discard(self) -> None:
        """After a pass that failed: all rows are gone, and another batch may take the core. Raises what vLLM raises."""
        self.model.stream.lines = []
        self._core.recover(list(self._rows))

    # ---- told by the core, within a step ----

    def begin(self, spans: Sequence[Span], ids: Tensor, positions: Tensor) -> None:
        self._spans = spans
        self.model.stream.lines = []
        writing: list[tuple[Row, int]] = []
        for span in spans:
            row = self._rows[span.id]
            if row not in self._reading:
                writing.append((row, span.place))
            elif bank := self._reading[row]:
                at = torch.arange(span.place, span.place + span.count, device=ids.device)[None]
                self._lines(bank, steered_rows(bank, ids.device), at, ids, positions, in_prompt=True)
        if writing:
            places = dict(writing)
            rows = [row for row in self.rows if row in places]  # whatever vLLM's order, so that the bank lasts
            if rows != self._writing or self._bank is None:
                super().settle()
                self._writing, self._bank = rows, self._make_bank(rows, reading=False)
                self._steered = steered_rows(self._bank, ids.device) if self._bank else []
            if self._bank:
                at = torch.tensor([places[row] for row in rows], device=ids.device)[:, None]
                self._lines(self._bank, self._steered, at, ids, positions, in_prompt=False)

    def _lines(
        self, bank: Bank, steered: list[Tensor], at: Tensor, ids: Tensor, positions: Tensor, *, in_prompt: bool
    ) -> None:
        true = torch.ones_like(at, dtype=torch.bool)
        bank.begin(Step(positions[at], true if in_prompt else ~true, self._special[ids[at]], true))
        self.model.stream.lines.append(Lines(bank, at, steered))

    def end(self, hidden: Tensor) -> None:
        for lines in self.model.stream.lines:
            lines.bank.end()
        self.model.stream.lines = []
        for span in self._spans:
            row = self._rows[span.id]
            if row in self._reading and row.state.params.prompt_logprobs:
                own = hidden[span.place : span.place + span.count]
                row.read += prompt_details(row, self._core.logits(own), span.start)

    def choose(self, ids: Sequence[str], logits: Tensor) -> list[int]:
        rows = [self._rows[id] for id in ids]
        for row in rows:
            if row in self._reading:
                if bank := self._reading.pop(row):
                    bank.settle()
                row.decide()
        self._choices = self._choose(rows, logits)
        return [choice.token for choice in self._choices]
