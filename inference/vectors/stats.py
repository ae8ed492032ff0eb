"""What a direction is worth: separability on held-out pairs, and agreement between halves of the data.

Arrays are float32[n, d_model], row i of `pos` and of `neg` being the two sides of pair i. Everything is seeded.
"""

from __future__ import annotations

import numpy as np

from inference.vectors.methods import mean_difference

FOLDS = 4
HALVES = 16
SEED = 0
LARGEST_D_PRIME = 100.0  # of sides that do not vary at all


def auc(pos: np.ndarray, neg: np.ndarray) -> float:
    """Chance that a random positive score exceeds a random negative one; ties count half. Scores are float[n]."""
    ordered = np.sort(neg)
    below = np.searchsorted(ordered, pos, side="left")
    not_above = np.searchsorted(ordered, pos, side="right")
    return float((below + not_above).sum() / (2 * len(pos) * len(neg)))


def d_prime(pos: np.ndarray, neg: np.ndarray) -> float:
    """Distance of the mean scores in pooled standard deviations, held within +-100 so that it stays a number."""
    gap = float(pos.mean() - neg.mean())
    spread = float(np.sqrt((pos.var(ddof=1) + neg.var(ddof=1)) / 2))
    if gap == 0:
        return 0.0
    ratio = gap / spread if spread > 0 else np.sign(gap) * np.inf
    return float(np.clip(ratio, -LARGEST_D_PRIME, LARGEST_D_PRIME))


def held_out_projections(pos: np.ndarray, neg: np.ndarray, folds: int = FOLDS) -> tuple[np.ndarray, np.ndarray]:
    """Scores (float64[n], float64[n]) of pairs on the unit direction that the other folds give.

    Each fold counts from the midpoint of its training sides, so that scores of different folds share an origin.
    """
    order = np.random.default_rng(SEED).permutation(len(pos))
    scores = np.zeros((2, len(pos)))
    for held in np.array_split(order, folds):
        rest = np.setdiff1d(order, held)
        direction = mean_difference(pos[rest], neg[rest]).astype(np.float64)
        unit = direction / (np.linalg.norm(direction) or 1.0)
        midpoint = (pos[rest].mean(axis=0, dtype=np.float64) + neg[rest].mean(axis=0, dtype=np.float64)) / 2
        scores[0, held] = (pos[held] - midpoint) @ unit
        scores[1, held] = (neg[held] - midpoint) @ unit
    return scores[0], scores[1]


def split_half(pos: np.ndarray, neg: np.ndarray, halves: int = HALVES) -> float:
    """Mean cosine of the directions of two random halves of the pairs, over `halves` splits."""
    differences = pos.astype(np.float64) - neg
    rng = np.random.default_rng(SEED)
    cosines = []
    for _ in range(halves):
        order = rng.permutation(len(differences))
        first = differences[order[: len(order) // 2]].mean(axis=0)
        second = differences[order[len(order) // 2 :]].mean(axis=0)
        size = np.linalg.norm(first) * np.linalg.norm(second)
        cosines.append(first @ second / size if size > 0 else 0.0)
    return float(np.mean(cosines))
