"""Choosing one row's token where that takes more than cutting a tail off: typical sampling, determinantal sampling.

One row at a time, in float64, so that a token never depends on who else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from inference import diverse
from inference.types import SamplingParams

Embed = Callable[[np.ndarray], np.ndarray]  # ids int64[n] to float64[n, d_model]


def choose(
    scores: np.ndarray,
    params: SamplingParams,
    temperature: float,
    top_p: float,
    uniform: Callable[[], float],
    embed: Embed | None,
) -> int:
    """A token by `scores`, float64[vocab] with penalties and bias in; `temperature` above 0."""
    ids, weights = survivors(scores, params, temperature, top_p)
    if params.ads_subset_size:
        assert embed is not None
        ids, weights = ids[: diverse.MOST], weights[: diverse.MOST]
        probabilities = weights / weights.sum()
        place = diverse.draw(probabilities, embed(ids), params.ads_subset_size, params.ads_beta, uniform)
    else:
        place = diverse.pick(weights, uniform())
    return int(ids[place])


def survivors(
    scores: np.ndarray, params: SamplingParams, temperature: float, top_p: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and weights of the tokens that top-k, top-p, min-p and typical leave, likeliest first, lowest id first."""
    scaled = (scores - scores.max()) / temperature
    if 0 < params.top_k < len(scaled):
        edge = np.partition(scaled, -params.top_k)[-params.top_k]
        ids = np.flatnonzero(scaled >= edge)
    else:
        ids = np.flatnonzero(scaled > -np.inf)
    ids = ids[np.argsort(-scaled[ids], kind="stable")]
    weights = np.exp(scaled[ids])
    if top_p < 1:
        before = weights.cumsum() - weights
        ids, weights = ids[before < top_p * weights.sum()], weights[before < top_p * weights.sum()]
    enough = weights >= params.min_p
    ids, weights = ids[enough], weights[enough]
    if params.typical_p < 1:
        kept = typical(weights / weights.sum(), params.typical_p)
        ids, weights = ids[kept], weights[kept]
    return ids, weights


def typical(probabilities: np.ndarray, mass: float) -> np.ndarray:
    """bool[n]: the tokens whose surprise is nearest to the entropy, until they hold `mass`, with equals at the edge."""
    surprise = -np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    distance = np.abs(surprise - (probabilities * surprise).sum())
    order = np.argsort(distance, kind="stable")
    last = min(int((probabilities[order].cumsum() < mass).sum()), len(order) - 1)
    return distance <= distance[order[last]]
