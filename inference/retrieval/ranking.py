"""How good a ranking is, where somebody has said which items are relevant. Labels are 1 or 0, best ranked first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def precision_at(labels: Sequence[int], k: int) -> float:
    """Share of relevant items among the first k; places that nobody took count as not relevant."""
    return sum(labels[:k]) / k


def ndcg_at(labels: Sequence[int], k: int, relevant: int) -> float:
    """Discounted gain of the first k over that of the best ranking there could be of `relevant` items."""
    gain = sum(label / math.log2(rank + 1) for rank, label in enumerate(labels[:k], 1))
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, relevant) + 1))
    return gain / best if best else 0.0


def average_precision(labels: Sequence[int], relevant: int) -> float:
    """Mean over all relevant items of the precision where each stands; one that was not found counts as 0."""
    found = [precision_at(labels, rank) for rank, label in enumerate(labels, 1) if label]
    return sum(found) / relevant if relevant else 0.0


def auprc(labels: Sequence[int], scores: Sequence[float]) -> float | None:
    """Area under the precision-recall curve over the items that were ranked, by trapezoids, equal scores together.

    None where none of them is relevant. Average precision takes steps instead, and counts what was missed.
    """
    total = sum(labels)
    if not total:
        return None
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    sorted_scores, hits = np.asarray(scores, float)[order], np.cumsum(np.asarray(labels)[order])
    ends = np.append(np.flatnonzero(np.diff(sorted_scores)), len(labels) - 1)
    precision, recall = hits[ends] / (ends + 1), hits[ends] / total
    points = np.concatenate([[0.0], recall]), np.concatenate([[1.0], precision])
    return float(np.trapezoid(points[1], points[0]))


def metrics(labels: Sequence[int], scores: Sequence[float], relevant: int) -> dict[str, Any]:
    """All of them for one ranking. `relevant` is how many relevant items there are, ranked or not."""
    k = max(1, len(labels))
    area = auprc(labels, scores)
    found = {
        "precision_at_1": precision_at(labels, 1),
        "precision_at_3": precision_at(labels, 3),
        "precision_at_k": precision_at(labels, k),
        "ndcg_at_3": ndcg_at(labels, 3, relevant),
        "average_precision": average_precision(labels, relevant),
        "auprc": area,
    }
    return {name: value if value is None else round(value, 6) for name, value in found.items()} | {
        "k": k, "relevant": relevant, "found": sum(labels)
    }  # fmt: skip
