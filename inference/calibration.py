"""From scores of texts with a behaviour and without to a threshold, and to what it is worth. Pure; needs numpy alone.

A score fires when it lies above the threshold. Arrays are float[n], of texts that had no part in what scored them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from inference.statistics import Interval, auroc, auroc_interval, wilson

MOST_POINTS = 400  # of a curve


def threshold_for(pos: np.ndarray, neg: np.ndarray, rate: float) -> float:
    """The lowest threshold at which new texts without the behaviour fire at a rate of at most `rate` on average.

    Of n scores without the behaviour, floor(rate (n + 1)) - 1 may lie above it (split conformal prediction, Vovk et
    al. 2005): the (n + 1)-th, that of a new text, takes any place among them alike. With fewer than `texts_needed`
    there is no such threshold; then none lies above, and it stands midway to the next higher score with the behaviour.
    Rounded to float32, in which an engine compares.
    """
    ordered = np.sort(neg)[::-1]
    above = math.floor(rate * (len(neg) + 1) + 1e-9) - 1
    if above >= 0:
        return _rounded(ordered[above])
    higher = pos[pos > ordered[0]]
    return _rounded((ordered[0] + higher.min()) / 2 if len(higher) else ordered[0])


def texts_needed(rate: float) -> int:
    """How many texts without the behaviour can vouch for `rate`."""
    return math.ceil(1 / rate - 1 - 1e-9)


def figures(pos: np.ndarray, neg: np.ndarray, threshold: float) -> dict[str, Any]:
    """ "auroc" with "auroc_interval" (DeLong; null of one pair), and precision, recall and false positive rate as
    [estimate, low, high] (Wilson). Precision is that among as many texts with the behaviour as without as there were,
    and null where nothing fired."""
    hits, alarms = int((pos > threshold).sum()), int((neg > threshold).sum())
    area = auroc_interval(pos, neg) if min(len(pos), len(neg)) > 1 else None
    return {
        "auroc": area.estimate if area else auroc(pos, neg),
        "auroc_interval": listed(area) if area else None,
        "precision": listed(wilson(hits, hits + alarms)) if hits + alarms else None,
        "recall": listed(wilson(hits, len(pos))),
        "false_positive_rate": listed(wilson(alarms, len(neg))),
    }


def listed(interval: Interval) -> list[float]:
    return [interval.estimate, interval.low, interval.high]


def roc(pos: np.ndarray, neg: np.ndarray) -> list[list[float]]:
    """[false positive rate, true positive rate, threshold], from nothing that fires to everything."""
    values = np.unique(np.concatenate([pos, neg]))[::-1]
    thresholds = np.append(values, np.nextafter(values[-1], -np.inf))
    if len(thresholds) > MOST_POINTS:
        thresholds = thresholds[np.linspace(0, len(thresholds) - 1, MOST_POINTS).round().astype(int)]
    ordered = np.sort(pos), np.sort(neg)
    tpr, fpr = (1 - np.searchsorted(side, thresholds, side="right") / len(side) for side in ordered)
    return np.column_stack([fpr, tpr, thresholds]).tolist()


def _rounded(value: float) -> float:
    """Upwards where it is rounded, so that nothing more lies above."""
    single = np.float32(value)
    return float(single if single >= value else np.nextafter(single, np.float32(np.inf)))
