"""A direction and what it is worth, by any method, in steps that are each one fit."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from inference.vectors import stats
from inference.vectors.methods import MEANS, METHODS, Fit
from inference.vectors.probe import STRENGTHS, logistic

FEWEST = 4  # pairs, below which nothing can be held out
HALVES = 3  # splits, where each means two fits


@dataclass(frozen=True)
class Measured:
    """`values` float32[d_model]. `auc`, `d_prime` are of pairs held out of the fit; `facts` what the method chose."""

    values: np.ndarray
    auc: float
    d_prime: float
    split_half: float
    facts: dict[str, Any] = field(default_factory=dict)


Scores = tuple[np.ndarray, np.ndarray]  # float64[n] of the positive and of the negative sides


def measure(method: str, pos: np.ndarray, neg: np.ndarray) -> Iterator[Measured | None]:
    """Yields None between fits, and at last what was found. `pos`, `neg`: float32[n, d_model]."""
    fit: Fit = METHODS[method]
    facts: dict[str, Any] = {}
    if len(pos) < FEWEST:
        yield Measured(fit(pos, neg), 0.5, 0.0, 0.0)
        return
    if method in MEANS:
        scores = stats.held_out_projections(pos, neg)
        yield Measured(fit(pos, neg), stats.auc(*scores), stats.d_prime(*scores), stats.split_half(pos, neg))
        return
    if method == "logistic":
        chosen, scores = yield from _chosen(pos, neg)
        fit, facts = partial(logistic, c=chosen), {"c": chosen}
    else:
        scores = yield from _held_out(fit, pos, neg)
    agreement = yield from _agreement(fit, pos, neg)
    yield Measured(fit(pos, neg), stats.auc(*scores), stats.d_prime(*scores), agreement, facts)


def _chosen(pos: np.ndarray, neg: np.ndarray) -> Generator[None, None, tuple[float, Scores]]:
    """The strongest penalty of those that tell held-out sides apart best."""
    best: tuple[float, float, Scores] | None = None
    for c in STRENGTHS:
        scores = yield from _held_out(partial(logistic, c=c), pos, neg)
        auc = stats.auc(*scores)
        if best is None or auc > best[0]:
            best = auc, c, scores
    assert best is not None
    return best[1], best[2]


def _held_out(fit: Fit, pos: np.ndarray, neg: np.ndarray) -> Generator[None, None, Scores]:
    scores = np.zeros((2, len(pos)))
    for held in stats.folds(len(pos)):
        kept = np.setdiff1d(np.arange(len(pos)), held)
        scores[:, held] = stats.projections(fit(pos[kept], neg[kept]), (pos, neg), held, kept)
        yield None
    return scores[0], scores[1]


def _agreement(fit: Fit, pos: np.ndarray, neg: np.ndarray) -> Generator[None, None, float]:
    """Mean cosine of what two random halves of the pairs give."""
    cosines = []
    for first in stats.halves(len(pos), HALVES):
        found = []
        for half in (first, ~first):
            found.append(fit(pos[half], neg[half]).astype(np.float64))
            yield None
        sizes = np.linalg.norm(found[0]) * np.linalg.norm(found[1])
        cosines.append(found[0] @ found[1] / (sizes or 1.0))
    return float(np.mean(cosines))
