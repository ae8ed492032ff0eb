"""From activations to a direction: pure functions of (pos, neg), each float32[n, d_model], to float32[d_model]."""

from __future__ import annotations

import numpy as np


def mean_difference(pos: np.ndarray, neg: np.ndarray) -> np.ndarray:
    """mean_i(pos_i - neg_i), in its raw scale.

    With activations of the last answer token this is contrastive activation addition (Rimsky et al., arXiv 2312.06681);
    with means over the answer's tokens it is the difference of means that AxBench (arXiv 2501.17148) calls DiffMean.
    """
    return (pos.mean(axis=0, dtype=np.float64) - neg.mean(axis=0, dtype=np.float64)).astype(np.float32)
