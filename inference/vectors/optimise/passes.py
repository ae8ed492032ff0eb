"""Rows (seed, text, sign) through the differentiable view, many at a time.

What lies below the steered layer never changes, so it is computed once per text and every later pass begins there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference.models.plain import PlainView
from inference.vectors.optimise.forms import Form
from inference.vectors.optimise.objectives import Reading, log_not
from inference.vectors.optimise.texts import Text

TOKENS_PER_SLICE = {"cuda": 8192}  # padding included
TOKENS_PER_SLICE_CPU = 40  # 0.08 s forward and as much back, of the default model in bfloat16 on one core


def budget_of(device: torch.device) -> int:
    return TOKENS_PER_SLICE.get(device.type, TOKENS_PER_SLICE_CPU)


@dataclass(frozen=True)
class Row:
    seed: int
    text: int
    sign: int
    noise: int = -1  # the seed of this row's noise; -1: none


class Passes:
    """`masks` say which tokens of each text are steered. `noise` is the norm of what is added to each of them."""

    def __init__(
        self, view: PlainView, layer: int, texts: Sequence[Text], masks: Sequence[np.ndarray], noise: float = 0.0
    ):
        self.view, self.layer, self.texts, self.noise = view, layer, texts, noise
        self.device, self.dtype = view.device, view.compute_dtype
        self.masks = [torch.from_numpy(mask).to(self.device, self.dtype) for mask in masks]
        self.starts: list[Tensor] = [torch.empty(0)] * len(texts)  # resid_post of the layer, [t, d]
        self.tokens = 0  # that went through the model

    def prepare(self, until: int | None) -> Iterator[list[tuple[int, Reading]]]:
        """Unsteered passes: fills `starts`, and yields the readings of some texts at a time."""
        order = sorted(range(len(self.texts)), key=lambda i: (-len(self.texts[i].ids), i))
        while order:
            fit = max(1, budget_of(self.device) // len(self.texts[order[0]].ids))
            some, order = order[:fit], order[fit:]
            with torch.no_grad():
                rows = [Row(0, text, 1) for text in some]
                ids = self._ids(rows)
                read = self._places(rows)
                logits, found, reached = self.view.run(ids, layer=self.layer, read=read, until=until)
                for i, text in enumerate(some):
                    self.starts[text] = found[i, : len(self.texts[text].ids)].to(self.dtype)
                self.tokens += sum(len(self.texts[text].ids) for text in some)
                readings = self._readings(rows, logits, reached)
            yield list(zip(some, readings, strict=True))

    def read(self, rows: Sequence[Row], form: Form, theta: Tensor, until: int | None) -> list[Reading]:
        """Steered readings, with the graph that leads back to `theta` [seeds, size]."""
        logits, reached = self._steered(rows, form, theta, self._places(rows), until)
        return self._readings(rows, logits, reached)

    def log_probabilities(self, rows: Sequence[Row], form: Form | None, theta: Tensor) -> list[Tensor]:
        """At every token of every row, [t, vocabulary] each; unsteered without a form."""
        lengths = [len(self.texts[row.text].ids) for row in rows]
        at = torch.tensor([(i, j) for i, n in enumerate(lengths) for j in range(n)], device=self.device)
        logits, _ = self._steered(rows, form, theta, (at[:, 0], at[:, 1]), None)
        return list(logits.log_softmax(-1).split(lengths))

    def _steered(
        self, rows: Sequence[Row], form: Form | None, theta: Tensor, read: tuple[Tensor, Tensor], until: int | None
    ) -> tuple[Tensor, Tensor | None]:
        start = torch.nn.utils.rnn.pad_sequence([self.starts[row.text] for row in rows], batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([self.masks[row.text] for row in rows], batch_first=True)[..., None]
        sign = torch.tensor([row.sign for row in rows], device=self.device, dtype=self.dtype)[:, None, None]
        chosen = theta[torch.tensor([row.seed for row in rows], device=self.device)]

        def edit(h: Tensor) -> Tensor:
            edited = form.edit(h, chosen, mask, sign) if form else h
            return edited + mask * self._noise(rows, h) if self.noise else edited

        self.tokens += sum(len(self.texts[row.text].ids) for row in rows)
        logits, _, reached = self.view.run(
            self._ids(rows), layer=self.layer, start=start, edit=edit, read=read, until=until
        )
        return logits, reached

    def _noise(self, rows: Sequence[Row], h: Tensor) -> Tensor:
        """Drawn row by row, so that it does not depend on who shares the pass."""
        noise = torch.zeros(h.shape, dtype=torch.float64)
        for i, row in enumerate(rows):
            if row.noise >= 0:
                generator = torch.Generator().manual_seed(row.noise)
                shape = (len(self.texts[row.text].ids), h.shape[-1])
                noise[i, : shape[0]] = torch.randn(shape, generator=generator, dtype=torch.float64)
        return noise.to(h) * (self.noise / h.shape[-1] ** 0.5)

    def _ids(self, rows: Sequence[Row]) -> Tensor:
        ids = [torch.tensor(self.texts[row.text].ids) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).to(self.device)

    def _places(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Where the targets are predicted."""
        texts = [self.texts[row.text] for row in rows]
        where = [(i, text.prompt - 1 + k) for i, text in enumerate(texts) for k in range(len(text.targets))]
        at = torch.tensor(where, dtype=torch.long, device=self.device).reshape(-1, 2)
        return at[:, 0], at[:, 1]

    def _readings(self, rows: Sequence[Row], logits: Tensor, reached: Tensor | None) -> list[Reading]:
        texts = [self.texts[row.text] for row in rows]
        targets = torch.tensor([t for text in texts for t in text.targets], dtype=torch.long, device=self.device)
        counts = [len(text.targets) for text in texts]
        log_p = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0].split(counts)
        log_q = log_not(logits, targets).split(counts)
        residuals = [None if reached is None else reached[i, : len(t.ids)].to(self.dtype) for i, t in enumerate(texts)]
        return [Reading(*parts) for parts in zip(log_p, log_q, residuals, strict=True)]
