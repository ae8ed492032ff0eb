"""What is minimised. A case is what has one loss: a completion, a preference, or a prompt, with the texts it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from inference.vectors.optimise.texts import Text


@dataclass(frozen=True)
class Case:
    """`texts` are indices; `sign` is the direction in which the vector acts on them."""

    texts: tuple[int, ...]
    sign: int
    datapoint: int
    suppress: bool = False


@dataclass(frozen=True)
class Reading:
    """What one text gave: log p of each target and log(1 - p), both [targets], or a later resid_post [t, d]."""

    log_p: Tensor
    log_not: Tensor
    residual: Tensor | None = None


class Objective(Protocol):
    texts: list[Text]
    cases: list[Case]
    until: int | None  # the layer whose residual is wanted, instead of logits
    base: list[Reading]  # of each text, unsteered

    def losses(self, cases: Sequence[Case], readings: Sequence[Sequence[Reading]]) -> tuple[Tensor, Tensor]:
        """(losses as they are reported, losses as they are minimised), [cases] each."""
        ...


class Promotion:
    """-log p of what is promoted, -log(1 - p) of what is suppressed, summed over a completion's tokens.

    Dunefsky & Cohan, One-shot Optimized Steering Vectors (arXiv 2502.18862). With `target`, (loss - target)^2 is
    minimised: satisficing, which ends at the weakest vector that does it.
    """

    until: int | None = None

    def __init__(self, texts: list[Text], cases: list[Case], target: float | None = None):
        self.texts, self.cases, self.target = texts, cases, target
        self.base: list[Reading] = []

    def losses(self, cases: Sequence[Case], readings: Sequence[Sequence[Reading]]) -> tuple[Tensor, Tensor]:
        pairs = zip(cases, readings, strict=True)
        losses = torch.stack([-(r.log_not if case.suppress else r.log_p).sum() for case, (r,) in pairs])
        return losses, losses if self.target is None else (losses - self.target) ** 2


class Bipo:
    """-log sigmoid(d beta [log-ratio of the preferred - log-ratio of the other]), each ratio to the unsteered model.

    Cao et al., Personalized Steering of LLMs via Bi-directional Preference Optimization (arXiv 2406.00045). The paper
    draws d from {-1, +1} for each step; here both are taken, which is the mean of what it draws. A case's texts are the
    preferred completion and the other.
    """

    until: int | None = None

    def __init__(self, texts: list[Text], cases: list[Case], beta: float):
        self.texts, self.cases, self.beta = texts, cases, beta
        self.base: list[Reading] = []

    def losses(self, cases: Sequence[Case], readings: Sequence[Sequence[Reading]]) -> tuple[Tensor, Tensor]:
        losses = []
        for case, (better, worse) in zip(cases, readings, strict=True):
            ratio, other = (
                r.log_p.sum() - self.base[t].log_p.sum() for r, t in zip((better, worse), case.texts, strict=True)
            )
            losses.append(-logsigmoid(case.sign * self.beta * (ratio - other)))
        stacked = torch.stack(losses)
        return stacked, stacked


class Melbo:
    """Minus the size of the change at a later layer, (sum over tokens |dh|^p)^(1/q): what matters most is sought.

    Mack & Turner, Mechanistically Eliciting Latent Behaviors (2024), with p = q = 2. There the bias is added to the
    MLP's output of the source layer, which is the same as adding it to that layer's resid_post, save where a norm
    follows the MLP (Gemma 2 and 3).
    """

    power = 2.0

    def __init__(self, texts: list[Text], cases: list[Case], until: int):
        self.texts, self.cases = texts, cases
        self.until: int | None = until
        self.base: list[Reading] = []

    def losses(self, cases: Sequence[Case], readings: Sequence[Sequence[Reading]]) -> tuple[Tensor, Tensor]:
        losses = []
        for case, (reading,) in zip(cases, readings, strict=True):
            base = self.base[case.texts[0]].residual
            assert reading.residual is not None
            assert base is not None
            sizes = (reading.residual - base).norm(dim=-1)
            losses.append(-((sizes**self.power).sum() ** (1 / self.power)))
        stacked = torch.stack(losses)
        return stacked, stacked


def log_not(logits: Tensor, targets: Tensor) -> Tensor:
    """log(1 - p) of each target [m] under logits [m, vocabulary]; exact, with a gradient, where p is close to 1."""
    others = logits.scatter(-1, targets[:, None], float("-inf"))
    return others.logsumexp(-1) - logits.logsumexp(-1)
