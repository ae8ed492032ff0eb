"""The output-constrained phase: the mean KL from the unsteered model on neutral texts is held to a bound.

A modified differential method of multipliers (Platt & Barr, 1988): minimise loss + w (KL / bound - 1), where each
seed's weight w grows while the bound is broken, and has a damping part in proportion to the breach.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from inference.vectors.optimise.forms import Form
from inference.vectors.optimise.passes import Passes, Row, budget_of

MULTIPLIER_RATE = 0.5
DAMPING = 1.0


class KlBound:
    """`kl` is [seeds]: nats per token, KL(steered || unsteered), as of the last look."""

    def __init__(self, passes: Passes, seeds: int, limit: float):
        self.passes, self.limit = passes, limit
        self.kl = torch.full((seeds,), float("nan"), dtype=torch.float64)
        self._multiplier = torch.zeros(seeds, dtype=torch.float64)
        self._base: list[Tensor] = []
        self._tokens = sum(len(text.ids) for text in passes.texts)

    @property
    def texts(self) -> int:
        return len(self.passes.texts)

    def prepare(self) -> Iterator[None]:
        for _ in self.passes.prepare(None):
            yield
        nothing = torch.zeros(1, 0, device=self.passes.device)
        with torch.no_grad():
            for text in range(self.texts):
                self._base += self.passes.log_probabilities([Row(0, text, 1)], None, nothing)
                yield

    def look(self, form: Form, theta: Tensor, seeds: Sequence[int], gradient: Tensor | None) -> Iterator[None]:
        """Measure the KL of `seeds`; with `gradient` [seeds, size], add what pulls them back to the bound."""
        weights = self._weights()
        total = torch.zeros(len(theta), dtype=torch.float64)
        for rows in self._parts(seeds):
            leaf = theta.detach().requires_grad_(gradient is not None)
            with torch.set_grad_enabled(gradient is not None):
                steered = self.passes.log_probabilities(rows, form, leaf)
                sums = [(s.exp() * (s - self._base[r.text])).sum() for r, s in zip(rows, steered, strict=True)]
            for row, value in zip(rows, sums, strict=True):
                total[row.seed] += float(value.detach()) / self._tokens
            if gradient is not None:
                yield
                pull = torch.stack([float(weights[r.seed]) * value for r, value in zip(rows, sums, strict=True)]).sum()
                gradient += torch.autograd.grad(pull / (self._tokens * self.limit), leaf)[0]
            yield
        for seed in seeds:
            self.kl[seed] = total[seed]
            self._multiplier[seed] = max(0.0, float(self._multiplier[seed] + MULTIPLIER_RATE * self._breach()[seed]))

    def holds(self, seed: int) -> bool:
        return bool(self.kl[seed] <= self.limit)

    def _breach(self) -> Tensor:
        return torch.nan_to_num(self.kl / self.limit - 1, nan=0.0).clamp(-1, 10)

    def _weights(self) -> Tensor:
        return self._multiplier + DAMPING * self._breach().clamp_min(0)

    def _parts(self, seeds: Sequence[int]) -> Iterator[list[Row]]:
        rows = [Row(seed, text, 1) for text in range(self.texts) for seed in seeds]
        longest = max(len(text.ids) for text in self.passes.texts)
        fit = max(1, budget_of(self.passes.device) // longest)
        return (rows[i : i + fit] for i in range(0, len(rows), fit))
