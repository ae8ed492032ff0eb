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


def recommend(stats: Sequence[LayerStats], n_layers: int, *, measured: bool = True) -> Recommendation:
    """The shallowest layer whose held-out d' x split-half cosine is as good as the best in the window, within error.

    The strength is the size by which the two kinds of text differ, held within what was seen to work. Without
    anything `measured`, of too few pairs, the middle of the window.
    """
    candidates, why = _candidates(stats, n_layers)
    enough = TOLERANCE * max(map(_score, candidates))
    best = next(s for s in candidates if _score(s) >= enough) if measured else candidates[len(candidates) // 2]
    natural = best.norm / best.residual_norm
    strength = round(round(min(max(natural, STRENGTHS[0]), STRENGTHS[1]) / 0.05) * 0.05, 2)
    if not measured:
        why = (
            f"Layer {best.layer} (of {n_layers}, counted from 0) lies where steering usually works. Of so few pairs "
            f"none can be held out, so nothing was measured: try the vector, at strength {strength:.2f} to begin with."
        )
        return Recommendation(best.layer, strength, why)
    reason = [
        f"Layer {best.layer} (of {n_layers}, counted from 0) {why}",
        f"There the direction tells held-out positive from negative texts with AUC {best.auc:.2f} and d' "
        f"{best.d_prime:.1f}, and directions from random halves of the data agree with cosine {best.split_half:.2f}.",
        f"Strength {strength:.2f} means that share of an ordinary token's size; your two kinds of text differ by "
        f"{natural:.2f} of it, and {STRENGTHS[0]} to {STRENGTHS[1]} is where to begin.",
    ]
    if best.auc < WEAK_AUC or best.split_half < WEAK_AGREEMENT:
        reason.append("Expect little: the pairs do not agree on one direction. Add more, or make them more alike.")
    return Recommendation(best.layer, strength, " ".join(reason))


def _candidates(stats: Sequence[LayerStats], n_layers: int) -> tuple[list[LayerStats], str]:
    window = [s for s in stats if WINDOW[0] <= s.layer / n_layers <= WINDOW[1]]
    if not window:
        why = "scores about as well as the best of those asked for; none is at the depth that works best."
        return list(stats), why
    onset = next((s.layer for s in stats if s.sink_norm > SINK_ONSET * s.residual_norm), n_layers)
    before = [s for s in window if s.layer < onset]
    candidates = before or window
    why = f"is the first to score about as well as the best of {_span(candidates)}, where steering works best."
    if before and len(before) < len(window):
        why += (
            f" From layer {onset} on an attention sink of over {SINK_ONSET:.0f} times the ordinary size is in the way."
        )
    return candidates, why


def _score(stat: LayerStats) -> float:
    return max(stat.d_prime, 0.0) * max(stat.split_half, 0.0)


def _span(stats: Sequence[LayerStats]) -> str:
    return f"layers {stats[0].layer} to {stats[-1].layer}" if len(stats) > 1 else f"layer {stats[0].layer}"
