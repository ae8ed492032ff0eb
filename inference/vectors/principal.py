"""Directions from principal components of the pairs' differences, as (pos, neg) to float32[d_model].

A component has no length and no sign of its own. It gets the length by which the two sides differ along it on average,
so that adding it once moves a negative example to where the positive ones are, as with a difference of means.
"""

from __future__ import annotations

import numpy as np


def pca(pos: np.ndarray, neg: np.ndarray) -> np.ndarray:
    """First right singular vector of the differences, not centred: along it they are largest; towards the positives.

    As in steering-vectors' `pca_aggregator`, and in representation engineering (Zou et al., arXiv 2310.01405) without
    its random signs.
    """
    differences = _differences(pos, neg)
    found = top_component(differences)
    return _sized(found if (differences @ found).mean() > 0 else -found, pos, neg)


def pca_centered(pos: np.ndarray, neg: np.ndarray) -> np.ndarray:
    """repeng's `pca_diff`: the mean difference is taken out first, so it finds where pairs differ from one another.

    With pairs that agree that is noise, or a nuisance that varies between them. For vectors equal to repeng's
    (Vogel, github.com/vgel/repeng). The sign is that of most pairs.
    """
    differences = _differences(pos, neg)
    return _sized(_by_majority(top_component(differences - differences.mean(axis=0)), differences), pos, neg)


def pca_center(pos: np.ndarray, neg: np.ndarray) -> np.ndarray:
    """repeng's `pca_center`: components of both sides about each pair's middle, which is +-half of its difference.

    The direction of `pca`, with the sign of most pairs.
    """
    differences = _differences(pos, neg)
    return _sized(_by_majority(top_component(differences), differences), pos, neg)


def top_component(rows: np.ndarray) -> np.ndarray:
    """Unit float64[d]: the first right singular vector of [n, d], through the smaller of its two Gram matrices."""
    n, d = rows.shape
    gram = rows @ rows.T if n < d else rows.T @ rows
    top = np.linalg.eigh(gram)[1][:, -1]
    found = rows.T @ top if n < d else top
    size = np.linalg.norm(found)
    return found / size if size > 0 else found


def _differences(pos: np.ndarray, neg: np.ndarray) -> np.ndarray:
    return pos.astype(np.float64) - neg


def _by_majority(found: np.ndarray, differences: np.ndarray) -> np.ndarray:
    along = differences @ found
    return -found if (along < 0).sum() > (along > 0).sum() else found


def _sized(unit: np.ndarray, pos: np.ndarray, neg: np.ndarray) -> np.ndarray:
    return (unit * abs(_differences(pos, neg).mean(axis=0) @ unit)).astype(np.float32)
