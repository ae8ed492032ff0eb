"""Sums of directions, and how directions lie to each other. Pure functions of numpy arrays; no model, no torch.

`directions` is float[n, d_model], one row per term, at one layer of one model. Everything is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

VANISHED = 1e-5  # of the largest term: float32 keeps seven digits, and what is left below this is their rounding


def weighted_sum(directions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sum_i w_i v_i, in raw scale."""
    return weights @ directions


def difference(directions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """w_0 v_0 - sum_{i>0} w_i v_i, in raw scale."""
    return np.concatenate([weights[:1], -weights[1:]]) @ directions


def average(directions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean of the unit directions, times their mean length: no term counts more for being longer."""
    return (weights @ unit(directions)) / weights.sum() * np.linalg.norm(directions, axis=1).mean()


def project_out(directions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """w_0 v_0 without its part in the span of the other rows: the result is orthogonal to each of them."""
    return weights[0] * (directions[0] - onto_span(directions[0], directions[1:]))


def rescale(directions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """w_0 v_0; a negative weight turns the direction round."""
    return weights[0] * directions[0]


OPERATIONS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "sum": weighted_sum,
    "difference": difference,
    "average": average,
    "project_out": project_out,
    "rescale": rescale,
}


def combine(operation: str, directions: Sequence[np.ndarray] | np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """float64[d_model]; all zeros where the terms cancel out, up to the rounding of float32."""
    rows = np.asarray(directions, dtype=np.float64)
    factors = np.asarray(weights, dtype=np.float64)
    result = OPERATIONS[operation](rows, factors)
    largest = (np.linalg.norm(rows, axis=1) * np.abs(factors)).max()
    return result if np.linalg.norm(result) > VANISHED * largest else np.zeros_like(result)


def onto_span(vector: np.ndarray, span: np.ndarray) -> np.ndarray:
    """The part of float[d] `vector` in the span of the rows of `span`, which may depend on each other."""
    _, sizes, basis = np.linalg.svd(unit(span), full_matrices=False)
    basis = basis[sizes > VANISHED * sizes.max()]
    return (vector @ basis.T) @ basis


def unit(directions: np.ndarray) -> np.ndarray:
    """float64[..., d] of length 1; zeros stay zeros."""
    rows = np.asarray(directions, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def cosines(directions: np.ndarray) -> np.ndarray:
    """float64[n, n], the diagonal exactly 1."""
    rows = unit(directions)
    matrix = np.clip(rows @ rows.T, -1.0, 1.0)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def plane(directions: np.ndarray) -> tuple[np.ndarray, float]:
    """(points float64[n, 2], share of the squared distances that the plane shows).

    PCA of the unit directions. Their Euclidean distance is sqrt(2 - 2 cos), so it is classical multidimensional scaling
    (Torgerson 1952) of that distance too. Each axis points to where its farthest point lies, so that it is the same
    picture every time.
    """
    rows = unit(directions)
    left, sizes, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    points = np.zeros((len(rows), 2))
    kept = min(2, len(sizes))
    points[:, :kept] = left[:, :kept] * sizes[:kept]
    farthest = points[np.abs(points).argmax(axis=0), (0, 1)]
    total = float((sizes**2).sum())
    shown = float((sizes[:kept] ** 2).sum()) / total if total > VANISHED**2 else 1.0
    return points * np.where(farthest < 0, -1.0, 1.0), shown
