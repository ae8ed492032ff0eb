"""A layer and a strength to begin with, and why. A rule over measurements; experiments may know better.

Separability alone favours deep layers, which read behaviour well but steer it badly (AxBench finds earlier layers the
better steerers). So layers compete only within a window of depth, and before attention sinks take over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference.types import LayerStats

WINDOW = (0.2, 0.45)  # of the model's depth
SINK_ONSET = 20.0  # sink norm over residual norm from which sinks govern attention; before, they come and go
TOLERANCE = 0.85  # of the best score: about one standard error of d' from 40 pairs
STRENGTHS = (0.3, 0.4)  # relative; with the default model less was seldom seen and more began to repeat itself
WEAK_AUC, WEAK_AGREEMENT = 0.7, 0.3


@dataclass(frozen=True)
class Recommendation:
    layer: int
    strength: float  # relative units
    reason: str


def recommend(stats: Sequence[LayerStats], n_layers: int) -> Recommendation:
    """The shallowest layer whose held-out d' x split-half cosine is as good as the best in the window, within error.

    The strength is the size by which the two kinds of text differ, held within what was seen to work.
    """
    candidates, limits = _candidates(stats, n_layers)
    enough = TOLERANCE * max(map(_score, candidates))
    best = next(s for s in candidates if _score(s) >= enough)
    natural = best.norm / best.residual_norm
    strength = round(min(max(natural, STRENGTHS[0]), STRENGTHS[1]) / 0.05) * 0.05
    where = (
        f"Layer {best.layer} of {n_layers} (counted from 0) {limits}: it tells held-out positive from negative texts "
        f"with AUC {best.auc:.2f} and d' {best.d_prime:.1f}, and random halves of the data agree on its direction with "
        f"cosine {best.split_half:.2f}."
    )
    dose = (
        f"Strength {strength:.2f} is relative to the usual size of a token there: your two kinds of text differ by "
        f"{natural:.2f} of it, and strengths of {STRENGTHS[0]} to {STRENGTHS[1]} are where to begin."
    )
    reason = [where, dose]
    if best.auc < WEAK_AUC or best.split_half < WEAK_AGREEMENT:
        reason.append(
            "Expect little: the pairs do not agree on one direction. Add more pairs, or make them more alike."
        )
    return Recommendation(best.layer, round(strength, 2), " ".join(reason))


def _candidates(stats: Sequence[LayerStats], n_layers: int) -> tuple[list[LayerStats], str]:
    window = [s for s in stats if WINDOW[0] <= s.layer / n_layers <= WINDOW[1]]
    if not window:
        return list(stats), "is the first to score well of the layers asked for, none of which is at the usual depth"
    onset = next((s.layer for s in stats if s.sink_norm > SINK_ONSET * s.residual_norm), n_layers)
    before = [s for s in window if s.layer < onset]
    if before and len(before) < len(window):
        sink = f"; from layer {onset} on some token is an attention sink, over {SINK_ONSET:.0f} times the usual size"
        return before, f"is the first to score well of layers {_span(before)}{sink}"
    return window, f"is the first to score well of layers {_span(window)}, where steering usually works"


def _score(stat: LayerStats) -> float:
    return max(stat.d_prime, 0.0) * max(stat.split_half, 0.0)


def _span(stats: Sequence[LayerStats]) -> str:
    return f"{stats[0].layer} to {stats[-1].layer}" if len(stats) > 1 else str(stats[0].layer)
