"""Every way to make a direction from pairs, by the name that it has on the wire."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from inference.vectors.means import caa, few_shot, mean_difference, prompt_difference
from inference.vectors.principal import pca, pca_center, pca_centered
from inference.vectors.probe import logistic

Fit = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (pos, neg), each float32[n, d_model], to float32[d_model]

METHODS: dict[str, Fit] = {
    "caa": caa,
    "mean_difference": mean_difference,
    "pca": pca,
    "pca_centered": pca_centered,
    "pca_center": pca_center,
    "logistic": logistic,
    "few_shot": few_shot,
    "prompt_difference": prompt_difference,
}
MEANS = frozenset({"caa", "mean_difference", "few_shot", "prompt_difference"})
