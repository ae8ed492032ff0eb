"""The direction that a logistic probe reads by: what tells the sides apart, taken as what to add.

A good detector need not steer well: on AxBench (arXiv 2501.17148) the probe is among the best at the one, and near the
bottom at the other.
"""

from __future__ import annotations

import numpy as np

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C, the inverse of the penalty; those to choose from
ROUNDS, TOLERANCE = 50, 1e-8


def logistic(pos: np.ndarray, neg: np.ndarray, c: float = 1e-2) -> np.ndarray:
    """float32[d_model]: w / sigma, for the weights w of a logistic regression on standardised activations.

    Minimises c * sum of losses + |w|^2 / 2, the intercept free: scikit-learn's LogisticRegression(C=c). The gradient of
    its score in raw activations is w / sigma, elementwise, and not w (linear probes: Alain and Bengio, arXiv
    1610.01644). It gets the length by which the two sides differ along it, as a component does.
    """
    both = np.concatenate([pos, neg]).astype(np.float64)
    sigma = both.std(axis=0)
    sigma[sigma == 0] = 1.0
    direction = weights((both - both.mean(axis=0)) / sigma, len(pos), c) / sigma
    direction /= np.linalg.norm(direction) or 1.0
    gap = pos.mean(axis=0, dtype=np.float64) - neg.mean(axis=0, dtype=np.float64)
    return (direction * abs(gap @ direction)).astype(np.float32)


def reading(pos: np.ndarray, neg: np.ndarray, c: float = 1e-2) -> tuple[np.ndarray, float]:
    """The same regression as what it reads: (w / sigma, bias), whose score of a raw activation is its log-odds."""
    both = np.concatenate([pos, neg]).astype(np.float64)
    mean, sigma = both.mean(axis=0), both.std(axis=0)
    sigma[sigma == 0] = 1.0
    w, intercept = fitted((both - mean) / sigma, len(pos), c)
    return w / sigma, float(intercept - mean @ (w / sigma))


def weights(rows: np.ndarray, positives: int, c: float) -> np.ndarray:
    """The weights alone of `fitted`."""
    return fitted(rows, positives, c)[0]


def fitted(rows: np.ndarray, positives: int, c: float) -> tuple[np.ndarray, float]:
    """Weights float64[d] and intercept, for rows [n, d] of which the first `positives` are positive. Newton's method.

    The best weights lie in the span of the rows, so that with fewer rows than dimensions the problem is of their size.
    """
    n, d = rows.shape
    if n < d:
        basis, triangle = np.linalg.qr(rows.T)
        inner, intercept = fitted(triangle.T, positives, c)
        return basis @ inner, intercept
    x = np.column_stack([rows, np.ones(n)])
    sign = np.where(np.arange(n) < positives, 1.0, -1.0)
    penalty = np.append(np.full(d, 1 / c), 1e-12)  # a trace on the intercept keeps the system solvable
    w = np.zeros(d + 1)
    loss = _loss(w, x, sign, penalty)
    for _ in range(ROUNDS):
        odds = 1 / (1 + np.exp(np.clip(sign * (x @ w), -500, 500)))
        gradient = penalty * w - x.T @ (sign * odds)
        curvature = (x.T * (odds * (1 - odds))) @ x
        curvature[np.diag_indices(d + 1)] += penalty
        step = np.linalg.solve(curvature, gradient)
        share = 1.0
        while (after := _loss(w - share * step, x, sign, penalty)) > loss and share > 1e-6:
            share /= 2
        w -= share * step
        if loss - after <= TOLERANCE * max(loss, 1e-12):
            break
        loss = after
    return w[:-1], float(w[-1])


def _loss(w: np.ndarray, x: np.ndarray, sign: np.ndarray, penalty: np.ndarray) -> float:
    return float(np.logaddexp(0, -sign * (x @ w)).sum() + (penalty * w * w).sum() / 2)
