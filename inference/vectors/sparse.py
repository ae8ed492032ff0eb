"""A logistic regression on few of many columns: L1, by accelerated proximal gradient (FISTA, Beck & Teboulle 2009).

Sparse probes on the latents of an autoencoder are read off a handful of features (SAE probes, arXiv 2502.16681).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

STEPS = tuple(1.5**i for i in range(1, 17))  # how much weaker than the penalty under which nothing is left
ROUNDS, TOLERANCE = 2000, 1e-7


@dataclass(frozen=True)
class Sparse:
    """`weights` float64[d], most of them 0, with their `intercept`; `c` is the inverse of the penalty."""

    weights: np.ndarray
    intercept: float
    c: float

    @property
    def used(self) -> np.ndarray:
        """Columns that count, the heaviest first."""
        places = np.flatnonzero(self.weights)
        return places[np.argsort(-np.abs(self.weights[places]), kind="stable")]


def path(rows: np.ndarray, positives: int, most: int) -> Iterator[Sparse]:
    """Ever weaker penalties, as long as at most `most` columns count. `rows` as of `lasso`."""
    start = weakest(rows, positives)
    found: np.ndarray | None = None
    for step in STEPS:
        made = lasso(rows, positives, start * step, found)
        if len(made.used) > most:
            return
        found = np.append(made.weights, made.intercept)
        yield made


def weakest(rows: np.ndarray, positives: int) -> float:
    """The c up to which all weights are 0."""
    share = positives / len(rows)
    pull = np.abs(rows.T @ (_labels(rows, positives) - share)).max()
    return float(1 / pull) if pull > 0 else 1.0


def lasso(rows: np.ndarray, positives: int, c: float, start: np.ndarray | None = None) -> Sparse:
    """Minimises c * sum of logistic losses + |w|_1, the intercept free: scikit-learn's with an L1 penalty.

    `rows` float64[n, d], the first `positives` of them positive; `start` weights and intercept to begin with.
    """
    x = np.column_stack([rows, np.ones(len(rows))])
    y = _labels(rows, positives)
    step = 4 / (c * max(float(np.linalg.norm(x, 2)) ** 2, 1e-12))
    w = np.zeros(x.shape[1]) if start is None else start.copy()
    ahead, speed, before = w, 1.0, np.inf
    for _ in range(ROUNDS):
        odds = 1 / (1 + np.exp(-np.clip(x @ ahead, -500, 500)))
        moved = ahead - step * c * (x.T @ (odds - y))
        new = np.sign(moved) * np.maximum(np.abs(moved) - step, 0)
        new[-1] = moved[-1]
        if (ahead - new) @ (new - w) > 0:  # it overshot: begin to gather speed anew (O'Donoghue & Candes 2015)
            speed = 1.0
        faster = (1 + np.sqrt(1 + 4 * speed * speed)) / 2
        ahead, speed = new + (speed - 1) / faster * (new - w), faster
        change = float(np.abs(new - w).max())
        w = new
        if change <= TOLERANCE * max(1.0, float(np.abs(w).max())) and before <= TOLERANCE:
            break
        before = change
    return Sparse(w[:-1], float(w[-1]), c)


def _labels(rows: np.ndarray, positives: int) -> np.ndarray:
    return (np.arange(len(rows)) < positives).astype(np.float64)
