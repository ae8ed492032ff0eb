"""What a direction is worth: separability on held-out pairs, and agreement between halves of the data.

Arrays are float32[n, d_model], row i of `pos` and of `neg` being the two sides of pair i. Everything is seeded.
"""

from __future__ import annotations

import numpy as np

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


def folds(n: int, count: int = FOLDS) -> list[np.ndarray]:
    """Rows held out in turn."""
    return np.array_split(np.random.default_rng(SEED).permutation(n), count)


def halves(n: int, count: int = HALVES) -> np.ndarray:
    """bool[count, n]: random halves of the rows."""
    rng = np.random.default_rng(SEED)
    first = np.zeros((count, n), bool)
    for row in first:
        row[rng.permutation(n)[: n // 2]] = True
    return first


def held_out_projections(pos: np.ndarray, neg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (float64[n], float64[n]) of pairs on the unit direction of means that the other folds give.

    Each fold counts from the midpoint of its training sides, so that scores of different folds share an origin.
    """
    sums = np.stack([pos.sum(axis=0, dtype=np.float64), neg.sum(axis=0, dtype=np.float64)])
    scores = np.zeros((2, len(pos)))
    for held in folds(len(pos)):
        sides = np.stack([pos[held], neg[held]]).astype(np.float64)
        train = (sums - sides.sum(axis=1)) / (len(pos) - len(held))
        direction = train[0] - train[1]
        scores[:, held] = (sides - train.mean(axis=0)) @ (direction / (np.linalg.norm(direction) or 1.0))
    return scores[0], scores[1]


def projections(
    direction: np.ndarray, both: tuple[np.ndarray, np.ndarray], held: np.ndarray, kept: np.ndarray
) -> np.ndarray:
    """float64[2, len(held)]: as above, on a direction that the rows `kept` gave."""
    origin = np.mean([side[kept].mean(axis=0, dtype=np.float64) for side in both], axis=0)
    unit = direction.astype(np.float64) / (np.linalg.norm(direction) or 1.0)
    return np.stack([(side[held] - origin) @ unit for side in both])


def split_half(pos: np.ndarray, neg: np.ndarray, count: int = HALVES) -> float:
    """Mean cosine of the directions of two random halves of the pairs, over `count` splits."""
    first = halves(len(pos), count).astype(np.float64)
    differences = pos.astype(np.float64) - neg
    sums, others = first @ differences, (1 - first) @ differences
    sizes = np.linalg.norm(sums, axis=1) * np.linalg.norm(others, axis=1)
    return float(np.mean((sums * others).sum(axis=1) / np.where(sizes > 0, sizes, 1.0)))
