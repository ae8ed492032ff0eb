"""Adaptive determinantal sampling: a few likely tokens that differ from each other, then one of them.

There is no paper of this name; this is the definition that Steerboard chose. Of the candidates that are left with
probabilities p (at most the 64 likeliest) and unit token embeddings e, a determinantal point process of fixed size k (a
k-DPP, Kulesza and Taskar 2011, 1207.6083) draws a subset Y with probability proportional to det(L_Y), where

    L_ij = sqrt(p_i) * S_ij * sqrt(p_j),    S = (1 - beta) * I + beta * (e_i . e_j).

Then one token of Y is drawn by p made to sum to 1 over Y. It is adaptive in that k is the number of tokens that the
model is in doubt about, exp(entropy of p) rounded up, and at most `ads_subset_size`. Why so:

- where the model is certain, k is 1, and a k-DPP of size 1 draws i with probability p_i: plain sampling;
- with beta 0 the subset is drawn by probability alone, with beta 1 two tokens that mean the same are never both in it;
- S is positive semidefinite for every beta, so the process is defined and drawn exactly, by its eigenvectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

MOST = 64  # candidates: a decomposition of this size takes a millisecond
_NOTHING = 1e-12  # of the largest eigenvalue: below it there is no dimension


def draw(
    probabilities: np.ndarray, embeddings: np.ndarray, size: int, beta: float, uniform: Callable[[], float]
) -> int:
    """The place of the token drawn. `probabilities`: float64[n], summing to 1; `embeddings`: float64[n, d]."""
    chosen = subset(probabilities, embeddings, size_of(probabilities, size), beta, uniform)
    return chosen[pick(probabilities[chosen], uniform())]


def size_of(probabilities: np.ndarray, most: int) -> int:
    """How many tokens are in doubt: the exponential of the entropy, rounded up, at most `most`."""
    some = probabilities[probabilities > 0]
    return max(1, min(most, math.ceil(math.exp(-(some * np.log(some)).sum()) - 1e-9)))


def kernel(probabilities: np.ndarray, embeddings: np.ndarray, beta: float) -> np.ndarray:
    """L, float64[n, n]."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.where(lengths > 0, lengths, 1)
    alike = beta * (unit @ unit.T)
    np.fill_diagonal(alike, 1.0)
    root = np.sqrt(probabilities)
    return root[:, None] * alike * root[None, :]


def subset(
    probabilities: np.ndarray, embeddings: np.ndarray, size: int, beta: float, uniform: Callable[[], float]
) -> list[int]:
    """A draw of the k-DPP: `size` different places, fewer where so many do not differ."""
    if size == 1:
        return [pick(probabilities, uniform())]
    values, vectors = np.linalg.eigh(kernel(probabilities, embeddings, beta))
    real = values > _NOTHING * values[-1]
    values, vectors = values[real] / values[-1], vectors[:, real]
    return _places(vectors[:, _dimensions(values, min(size, len(values)), uniform)], uniform)


def _dimensions(values: np.ndarray, size: int, uniform: Callable[[], float]) -> list[int]:
    """`size` eigenvectors, a set with probability proportional to the product of its eigenvalues."""
    sums = _symmetric_sums(values, size)
    chosen, left = [], size
    for n in range(len(values), 0, -1):
        if not left:
            break
        if n == left or uniform() * sums[left, n] < values[n - 1] * sums[left - 1, n - 1]:
            chosen.append(n - 1)
            left -= 1
    return chosen


def _symmetric_sums(values: np.ndarray, size: int) -> np.ndarray:
    """e[k, n]: the sum over all k-subsets of the first n values of their product."""
    sums = np.zeros((size + 1, len(values) + 1))
    sums[0] = 1.0
    for k in range(1, size + 1):
        for n in range(k, len(values) + 1):
            sums[k, n] = sums[k, n - 1] + values[n - 1] * sums[k - 1, n - 1]
    return sums


def _places(vectors: np.ndarray, uniform: Callable[[], float]) -> list[int]:
    """One place per dimension: each is drawn by what is left of it in the space, which then loses it."""
    chosen: list[int] = []
    while vectors.shape[1]:
        weights = np.square(vectors).sum(1)
        weights[chosen] = 0.0
        place = pick(weights / weights.sum(), uniform())
        chosen.append(place)
        if vectors.shape[1] == 1:
            break
        along = int(np.abs(vectors[place]).argmax())
        rest = vectors - np.outer(vectors[:, along] / vectors[place, along], vectors[place])
        vectors, _ = np.linalg.qr(np.delete(rest, along, axis=1))
    return chosen


def pick(weights: np.ndarray, number: float) -> int:
    """The place in which `number`, from 0 to 1, falls on the cumulative sum of `weights`."""
    reached = weights.cumsum()
    return int(min(np.searchsorted(reached, number * reached[-1], side="right"), np.flatnonzero(weights)[-1]))
