"""The job that makes a detector of a behaviour from examples.

What is read is what serving reads: `resid_post` at each token, before anything is steered. A detector learns from the
mean over a text's answer tokens, special tokens and attention sinks left out. A text's score is the largest over its
answer tokens (or their mean), without special ones and without the first token of all, which is a sink in most models
and never a generated one: so exactly those count on which a `Watch` over generated tokens can fire.

Layer and penalty are chosen by folds of the training pairs; threshold and figures come from pairs that neither the fit
nor that choice has seen. Generators, as all jobs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from inference import calibration
from inference.errors import InvalidRequest
from inference.fitting import Fitted, fit_dense, fit_few, fit_sparse, read_latents
from inference.probes import MAX_FEATURES
from inference.probing import open_source, read_tokens
from inference.reading import compile_read
from inference.store import dump, seal, summary
from inference.types import CreateVector, FitDetector, Progress, Result, SteeringVector
from inference.vectors import stats
from inference.vectors.doubts import Doubt, doubts
from inference.vectors.extract import assemble, check_job, layer_of, read_pairs, read_residuals
from inference.vectors.measure import FEWEST, measure
from inference.vectors.pooling import Pooler
from inference.vectors.recommend import WINDOW, recommend
from inference.vectors.spans import Reading

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel
    from inference.saes.sae import Sae
    from inference.saes.sources import Sources

Split = tuple[np.ndarray, np.ndarray]  # rows of pairs to learn from, and those held out


def fit_detector(
    model: LoadedModel, job: FitDetector, sources: Sources | None = None
) -> Iterator[Progress | Result | None]:
    """See `FitDetector`. Progress counts texts, each time they are read, and layers."""
    extraction = _extraction(job)
    layers = check_job(model, extraction, fewest=1 if job.few else 2 * FEWEST)
    _check_settings(job)
    few = len(job.pairs) < 2 * FEWEST
    sae = None
    if job.on == "features":
        sae, layers = yield from _opened(model, job, sources)
    elif not job.layers:
        layers = tuple(i for i in layers if WINDOW[0] <= i / model.n_layers <= WINDOW[1]) or layers
    seq, texts = count(), 2 * len(job.pairs)
    fitting = texts if sae is None else 2 * texts  # what has been read when fitting begins
    total = fitting + len(layers) + texts
    everything = np.arange(len(job.pairs))
    kept, held = (everything, everything) if few else split(len(job.pairs), job.held_out, job.seed)
    readings = yield from read_pairs(model, extraction, range(len(job.pairs)), seq, total)
    pooler = yield from read_residuals(model, job.id, readings, layers, seq, total)
    features = pooler.features
    if sae is not None:
        features = (yield from read_latents(model, job, readings, sae, layers[0], seq, texts, total))[None]

    fitted: list[Fitted] = []
    for index, layer in enumerate(layers):
        for found in _fits(job, features[index], kept, layer, few):
            if found is not None:
                fitted.append(found)
            yield Progress(
                job.id, next(seq), fitting + index + (found is not None), total, f"Fitted layer {layer}", None
            )

    probes = [[compile_read(p, model) for p in (f.probe, *f.folds)] for f in fitted]
    after = fitting + len(layers)
    could_be_written = [_without_first(reading) for reading in readings]
    by_layer = dict(zip(layers, probes, strict=True))
    read = yield from read_tokens(model, job.id, could_be_written, by_layer, seq, after, total)
    tokens = [text.scores for text in read]
    at, areas = _middle(tokens, layers, job.pooling) if few else _best_layer(tokens, layers, kept, job.pooling)
    yield from _finish(model, job, fitted[at], areas, tokens, layers[at], pooler, held, seq, total)


def _fits(job: FitDetector, features: np.ndarray, kept: np.ndarray, layer: int, few: bool) -> Iterator[Fitted | None]:
    if few:
        return fit_few(features, layer)
    return fit_sparse(job, features, kept, layer) if job.on == "features" else fit_dense(features, kept, layer)


def _without_first(reading: Reading) -> Reading:
    return replace(reading, positions=tuple(p for p in reading.positions if p > 0) or reading.positions)


def split(pairs: int, share: float, seed: int) -> Split:
    """Rows to learn from and rows held out, ascending."""
    n = min(max(round(share * pairs), 2), pairs - FEWEST)
    order = np.random.default_rng(seed).permutation(pairs)
    return np.sort(order[n:]), np.sort(order[:n])


# ---- choosing, and saying what it is worth ----


def _best_layer(
    tokens: Sequence[Sequence[np.ndarray]], layers: Sequence[int], kept: np.ndarray, pooling: str
) -> tuple[int, list[list[float]]]:
    """Its place, and [layer, AUROC] of all: of training pairs, each scored by the fold that it was held out of.

    Of layers that tell the sides apart equally well the one wins whose scores lie furthest apart (d').
    """
    areas, ranks = [], []
    for index, layer in enumerate(layers):
        scores = np.zeros((2, len(kept)))
        for fold, out in enumerate(stats.folds(len(kept)), 1):
            for side in (0, 1):
                scores[side, out] = [_pooled(tokens[2 * row + side][index][fold], pooling) for row in kept[out]]
        areas.append([layer, stats.auc(*scores)])
        ranks.append((round(areas[-1][1], 3), stats.d_prime(*scores)))
    return max(range(len(layers)), key=lambda i: ranks[i]), areas


def _middle(
    tokens: Sequence[Sequence[np.ndarray]], layers: Sequence[int], pooling: str
) -> tuple[int, list[list[float]]]:
    """The middle layer's place, since so few pairs cannot say which is best; and [layer, AUROC] of those pairs."""
    areas = []
    for index, layer in enumerate(layers):
        shown, absent = (np.array([_pooled(text[index][0], pooling) for text in tokens[side::2]]) for side in (0, 1))
        areas.append([layer, stats.auc(shown, absent)])
    return len(layers) // 2, areas


def _pooled(scores: np.ndarray, pooling: str) -> float:
    return float(scores.max() if pooling == "max" else scores.mean())


def _finish(
    model: LoadedModel,
    job: FitDetector,
    fitted: Fitted,
    areas: list[list[float]],
    tokens: Sequence[Sequence[np.ndarray]],
    layer: int,
    pooler: Pooler,
    held: np.ndarray,
    seq: Iterator[int],
    total: int,
) -> Iterator[Progress | Result]:
    at = [a[0] for a in areas].index(layer)
    own = [text[at][0] for text in tokens]  # of every text, its answer tokens' scores
    pos, neg = ([own[2 * row + side] for row in held] for side in (0, 1))
    shown, absent = (np.array([_pooled(text, job.pooling) for text in side]) for side in (pos, neg))
    threshold = calibration.threshold_for(shown, absent, job.false_positive_rate)
    peaks = [np.array([text.max() for text in side]) for side in (pos, neg)]
    by_token = calibration.threshold_for(peaks[0], peaks[1], job.false_positive_rate)
    alarms = np.concatenate(neg) > by_token
    few = len(job.pairs) < 2 * FEWEST
    vector = yield from _corrector(model, job, pooler, layer, seq, total)
    payload: dict[str, Any] = {
        "probe": fitted.probe.to_wire(),
        "threshold": threshold,
        **calibration.figures(shown, absent, threshold),
        "roc": calibration.roc(shown, absent),
        "token_threshold": by_token,
        "token_rate": calibration.listed(calibration.wilson(int(alarms.sum()), len(alarms))),
        "layers": areas,
        "n_train": len(job.pairs) if few else len(job.pairs) - len(held),
        "n_held_out": 0 if few else len(held),
        "scale": scale_of(np.concatenate(pos), by_token),
        "warnings": [doubt.wire() for doubt in _doubts(job, 0 if few else len(held))],
        "vector": summary(vector),
        "data": dump(vector),
    }
    yield Result(job.id, next(seq), payload)


def scale_of(tokens: np.ndarray, threshold: float) -> float:
    """How far above the threshold a token with the behaviour lies, in the median of those that do: half of them get the
    whole dose. `tokens` are scores of texts with the behaviour."""
    above = tokens[tokens > threshold] - threshold
    found = float(np.median(above)) if len(above) else float(tokens.std())
    return found if found > 0 else 1.0


def _doubts(job: FitDetector, held: int) -> list[Doubt]:
    found = doubts(job.pairs)
    if not held:
        found.append(
            Doubt(
                "nothing_held_out",
                f"Of {len(job.pairs)} in all no pair can be kept back, so threshold and figures come from the very "
                f"pairs that made the detector, and say nothing of other texts. Give {2 * FEWEST} or more; 50 give "
                "figures that one can rely on.",
            )
        )
    elif held < (needed := calibration.texts_needed(job.false_positive_rate)):
        found.append(
            Doubt(
                "few_held_out",
                f"{held} held-out texts cannot vouch for a false-positive rate of {job.false_positive_rate:.1%}; "
                f"{needed} can. None of them fires at this threshold, but new ones may more often than you asked. "
                "Add pairs, hold out a larger share, or allow a higher rate.",
            )
        )
    return found


def _corrector(
    model: LoadedModel, job: FitDetector, pooler: Pooler, layer: int, seq: Iterator[int], total: int
) -> Generator[Progress, None, SteeringVector]:
    """The mean difference of all pairs at every layer that was read, to be used at that of the detector."""
    extraction = _extraction(job)
    built = []
    for index in range(len(pooler.layers)):
        *_, found = measure("mean_difference", pooler.features[index, 0::2], pooler.features[index, 1::2])
        built.append(layer_of(pooler, index, found))
        yield Progress(job.id, next(seq), total, total, f"Measured layer {pooler.layers[index]}", 0.0)
    vector = assemble(model, extraction, pooler, built)
    stat = built[pooler.layers.index(layer)].stat
    advice = recommend([stat], model.n_layers)
    reason = f"Layer {layer} is where the detector reads, so that what it finds can be steered at once. {advice.reason}"
    return seal(replace(vector, id="", recommended_layer=layer, recommended_strength=advice.strength, reason=reason))


# ---- requests ----


def _extraction(job: FitDetector) -> CreateVector:
    return CreateVector(job.id, job.pairs, chat=job.chat, layers=job.layers, dataset_digest=job.dataset_digest)


def _check_settings(job: FitDetector) -> None:
    if not 0 < job.false_positive_rate <= 0.5:
        raise InvalidRequest(
            "bad_rate",
            f"A false-positive rate lies above 0, up to 0.5. It was {job.false_positive_rate:g}; 0.05 is usual.",
        )
    if not 0.1 <= job.held_out <= 0.7:
        raise InvalidRequest(
            "bad_share", f"Hold out a share of 0.1 to 0.7 of the pairs, not {job.held_out:g}. 0.3 is usual."
        )
    if job.seed < 0:
        raise InvalidRequest("bad_seed", f"A seed is 0 or more, not {job.seed}.")
    if job.on == "features" and len(job.pairs) < 2 * FEWEST:
        raise InvalidRequest(
            "too_few_pairs",
            f"A probe on features needs {2 * FEWEST} pairs, and this dataset has {len(job.pairs)}. Add more, or read "
            "the residual stream.",
        )
    if job.on == "features" and not 1 <= job.max_features <= MAX_FEATURES:
        raise InvalidRequest(
            "bad_max_features", f"A sparse probe reads 1 to {MAX_FEATURES} features, not {job.max_features}."
        )


def _opened(
    model: LoadedModel, job: FitDetector, sources: Sources | None
) -> Generator[Progress, None, tuple[Sae, tuple[int, ...]]]:
    if not job.source:
        raise InvalidRequest("no_source", "Name the source whose features the detector is to read, or use residuals.")
    sae = yield from open_source(model, job.source, sources, job.id, count(), 2 * len(job.pairs))
    layer = sae.place.residual
    if layer is None or layer < 0 or sae.context:
        raise InvalidRequest(
            "source_not_residual",
            f"{job.source} does not read the residual stream after a block, token by token, as a detector must "
            "while the model writes. Choose a residual source, or a detector on residuals.",
        )
    if job.layers not in ((), (layer,)):
        raise InvalidRequest("layer_not_of_source", f"{job.source} reads layer {layer}. Leave the layers out.")
    return sae, (layer,)
