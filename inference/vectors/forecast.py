"""Will these pairs give a reliable vector? Asked before building, of how far their differences agree.

Braun et al. (arXiv 2505.22637) found that steering works where the differences of single pairs point the same way and
the two sides lie apart along their mean, and that it fails, or backfires for part of the inputs, where they do not;
Tan et al. (arXiv 2407.12404) how often that is so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from inference.types import Forecast, LayerStats, Progress, Result
from inference.vectors import stats
from inference.vectors.doubts import doubts
from inference.vectors.extract import check_job, read_pairs, read_residuals
from inference.vectors.measure import FEWEST
from inference.vectors.recommend import WINDOW, recommend

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

MOST_PAIRS = 64  # an even part of more, so that a forecast takes seconds
SHOWN = 20  # of the pairs that disagree

Verdict = Literal["reliable", "uncertain", "unreliable"]
RELIABLE = {"agreement": 0.2, "split_half": 0.6, "d_prime": 1.5}  # all of them
UNRELIABLE = {"agreement": 0.05, "split_half": 0.3, "d_prime": 0.75}  # one of them is enough


@dataclass(frozen=True)
class Agreement:
    """Of one layer. `agreement`: mean cosine of a pair's difference with the mean of the others', 0 by chance."""

    layer: int
    agreement: float
    disagreeing: float  # share of pairs for which that cosine is below 0
    split_half: float
    d_prime: float
    auc: float


def forecast(model: LoadedModel, job: Forecast) -> Iterator[Progress | Result | None]:
    """Result.payload: {"layers": [Agreement], "layer": the one judged by, "verdict": Verdict, "sentence",
    "disagreeing": [{"row" from 0, "cosine"}], worst first, "pairs": how many there are, "read": [row, ...],
    "warnings": as of `create_vector`}. Raises InvalidRequest as that does.
    """
    layers = check_job(model, job, fewest=FEWEST)
    if not job.layers:
        layers = tuple(i for i in layers if WINDOW[0] <= i / model.n_layers <= WINDOW[1]) or layers
    rows = even_part(len(job.pairs), MOST_PAIRS)
    total, seq = 2 * len(rows) + len(layers), count()
    readings = yield from read_pairs(model, job, rows, seq, total)
    pooler = yield from read_residuals(model, job.id, readings, layers, seq, total)

    found, cosines = [], []
    for index, layer in enumerate(layers):
        pos, neg = pooler.features[index, 0::2], pooler.features[index, 1::2]
        cosines.append(cosines_with_others(pos, neg))
        found.append(agreement_of(layer, pos, neg, cosines[-1]))
        yield Progress(job.id, next(seq), 2 * len(rows) + index + 1, total, f"Compared layer {layer}", 0.0)

    best = recommend(
        [_as_stats(f, *sizes) for f, *sizes in zip(found, pooler.residual_norms, pooler.sink_norms, strict=True)],
        model.n_layers,
    ).layer
    at = layers.index(best)
    yield Result(job.id, next(seq), _payload(job, found, at, rows, cosines[at]))


def even_part(total: int, most: int) -> list[int]:
    """Rows spread evenly over all, `most` of them."""
    return list(range(total)) if total <= most else [i * total // most for i in range(most)]


def cosines_with_others(pos: np.ndarray, neg: np.ndarray) -> np.ndarray:
    """float64[n]: of each pair's difference with the sum of all others'. 0 where one of them is zero."""
    differences = pos.astype(np.float64) - neg
    others = differences.sum(axis=0) - differences
    sizes = np.linalg.norm(differences, axis=1) * np.linalg.norm(others, axis=1)
    return (differences * others).sum(axis=1) / np.where(sizes > 0, sizes, 1.0)


def agreement_of(layer: int, pos: np.ndarray, neg: np.ndarray, cosines: np.ndarray) -> Agreement:
    scores = stats.held_out_projections(pos, neg)
    return Agreement(
        layer=layer,
        agreement=float(cosines.mean()),
        disagreeing=float((cosines < 0).mean()),
        split_half=stats.split_half(pos, neg),
        d_prime=stats.d_prime(*scores),
        auc=stats.auc(*scores),
    )


def verdict_of(found: Agreement) -> Verdict:
    if any(getattr(found, name) < least for name, least in UNRELIABLE.items()):
        return "unreliable"
    return "reliable" if all(getattr(found, name) >= least for name, least in RELIABLE.items()) else "uncertain"


SENTENCES: dict[Verdict, str] = {
    "reliable": "These pairs agree on one direction: expect the vector to steer most inputs the same way.",
    "uncertain": "These pairs agree in part: expect a vector that works on many inputs and backfires on some. "
    "Look at the pairs that disagree.",
    "unreliable": "These pairs do not agree on a direction: expect a vector that does little, or something else. "
    "Make the pairs differ in one thing only, and in the same one.",
}


def _payload(job: Forecast, found: Sequence[Agreement], at: int, rows: Sequence[int], cosines: np.ndarray) -> Any:
    best, verdict = found[at], verdict_of(found[at])
    against = [{"row": rows[i], "cosine": float(cosines[i])} for i in np.argsort(cosines)[:SHOWN] if cosines[i] < 0]
    part = "" if len(rows) == len(job.pairs) else f" Read were {len(rows)} of {len(job.pairs)} pairs."
    figures = (
        f"At layer {best.layer} a pair's difference has cosine {best.agreement:.2f} with the others' on average, "
        f"{best.disagreeing:.0%} point the other way, halves of the data agree with {best.split_half:.2f}, and the "
        f"sides lie {best.d_prime:.1f} standard deviations apart."
    )
    return {
        "layers": [asdict(each) for each in found],
        "layer": best.layer,
        "verdict": verdict,
        "sentence": f"{SENTENCES[verdict]} {figures}{part}",
        "disagreeing": against,
        "pairs": len(job.pairs),
        "read": list(rows),
        "warnings": [doubt.wire() for doubt in doubts(job.pairs)],
    }


def _as_stats(found: Agreement, residual_norm: float, sink_norm: float) -> LayerStats:
    figures = found.auc, found.d_prime, found.split_half
    return LayerStats(found.layer, 1.0, float(residual_norm), float(sink_norm), *figures)
