"""Probes fitted to the training pairs of a detector: a dense one on residuals, a sparse one on SAE latents.

Generators that yield None between fits, each well under a slice of an engine's time.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inference.errors import InvalidRequest
from inference.probing import places
from inference.types import FeatureRef, FitDetector, Probe, Progress
from inference.vectors import spans, sparse, stats
from inference.vectors.probe import STRENGTHS, reading
from inference.vectors.slices import budget, shared, slices, whole

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel
    from inference.saes.sae import Sae

CANDIDATES = 512  # latents that a sparse probe chooses among: those whose means differ most, in standard errors


@dataclass(frozen=True, eq=False)
class Fitted:
    """A probe at `layer`, and those of the folds of `stats.folds`, each of which has not seen the pairs of its fold."""

    layer: int
    probe: Probe
    folds: tuple[Probe, ...]


def fit_dense(features: np.ndarray, kept: np.ndarray, layer: int) -> Iterator[Fitted | None]:
    """Yields None between fits. Of `features` float32[texts, d] those of the pairs `kept` count."""
    pos, neg = features[0::2][kept], features[1::2][kept]
    best: tuple[float, list[tuple[np.ndarray, float]], float] | None = None
    for c in STRENGTHS:
        folds, scores = [], np.zeros((2, len(kept)))
        for out in stats.folds(len(kept)):
            rest = np.setdiff1d(np.arange(len(kept)), out)
            w, bias = reading(pos[rest], neg[rest], c)
            folds.append((w, bias))
            scores[:, out] = pos[out] @ w + bias, neg[out] @ w + bias
            yield None
        area = stats.auc(scores[0], scores[1])
        if best is None or area > best[0]:
            best = area, folds, c
    assert best is not None
    final = reading(pos, neg, best[2])
    yield Fitted(layer, _probe(layer, final), tuple(_probe(layer, fold) for fold in best[1]))


def fit_few(features: np.ndarray, layer: int) -> Iterator[Fitted | None]:
    """The unit mean difference of all pairs, 0 midway between the sides: of so few nothing else can be learnt."""
    pos, neg = (features[side::2].mean(axis=0, dtype=np.float64) for side in (0, 1))
    unit = (pos - neg) / (np.linalg.norm(pos - neg) or 1.0)
    yield Fitted(layer, _probe(layer, (unit, -float(unit @ (pos + neg)) / 2)), ())


def _probe(layer: int, found: tuple[np.ndarray, float]) -> Probe:
    return Probe(layer, weights=found[0].astype(np.float32), bias=float(np.float32(found[1])))


def fit_sparse(job: FitDetector, latents: np.ndarray, kept: np.ndarray, layer: int) -> Iterator[Fitted | None]:
    """As `fit_dense`, of latents float32[texts, width]."""
    pos, neg = latents[0::2][kept].astype(np.float64), latents[1::2][kept].astype(np.float64)
    candidates = _candidates(pos, neg)
    if not len(candidates):
        raise InvalidRequest(
            "no_feature",
            f"No feature of {job.source} differs between the two sides, so nothing can be detected by it. Choose "
            "another source, or a detector on residuals.",
        )
    pos, neg = pos[:, candidates], neg[:, candidates]
    best: tuple[float, float, list[Probe]] | None = None
    for step in sparse.path(*_scaled(pos, neg)[:2], job.max_features):
        folds, scores = [], np.zeros((2, len(kept)))
        for out in stats.folds(len(kept)):
            rest = np.setdiff1d(np.arange(len(kept)), out)
            w, bias = _lasso(pos[rest], neg[rest], step.c)
            folds.append(_sparse_probe(job.source, layer, candidates, w, bias, len(candidates)))
            scores[:, out] = pos[out] @ w + bias, neg[out] @ w + bias
            yield None
        area = stats.auc(scores[0], scores[1])
        if best is None or area > best[0] + 1e-9:
            best = area, step.c, folds
    assert best is not None, "the first step of the path uses a feature or two"
    w, bias = _lasso(pos, neg, best[1])
    yield Fitted(layer, _sparse_probe(job.source, layer, candidates, w, bias, job.max_features), tuple(best[2]))


def _candidates(pos: np.ndarray, neg: np.ndarray) -> np.ndarray:
    """Columns that differ, most first: by the difference of means in standard errors."""
    spread = np.sqrt(pos.var(axis=0) / len(pos) + neg.var(axis=0) / len(neg))
    gap = np.abs(pos.mean(axis=0) - neg.mean(axis=0))
    size = np.divide(gap, spread, out=np.where(gap > 0, np.inf, 0.0), where=spread > 0)
    order = np.argsort(-size, kind="stable")[:CANDIDATES]
    return order[gap[order] > 0]


def _scaled(pos: np.ndarray, neg: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    both = np.concatenate([pos, neg])
    sizes = both.std(axis=0)
    sizes[sizes == 0] = 1.0
    return both / sizes, len(pos), sizes


def _lasso(pos: np.ndarray, neg: np.ndarray, c: float) -> tuple[np.ndarray, float]:
    rows, positives, sizes = _scaled(pos, neg)
    made = sparse.lasso(rows, positives, c)
    return made.weights / sizes, made.intercept


def _sparse_probe(source: str, layer: int, columns: np.ndarray, w: np.ndarray, bias: float, most: int) -> Probe:
    used = np.flatnonzero(w)
    used = used[np.argsort(-np.abs(w[used]), kind="stable")][:most]
    used = used if len(used) else np.array([0])  # under a fold's penalty nothing may be left
    return Probe(
        layer,
        features=tuple(FeatureRef(source, int(columns[i])) for i in used),
        feature_weights=tuple(float(np.float32(w[i])) for i in used),
        bias=float(np.float32(bias)),
    )


def read_latents(
    model: LoadedModel,
    job: FitDetector,
    readings: Sequence[spans.Reading],
    sae: Sae,
    layer: int,
    seq: Iterator[int],
    done: int,
    total: int,
) -> Generator[Progress, None, np.ndarray]:
    """float32[texts, width]: each latent's largest over the answer tokens, or its mean, as `job.pooling` says."""
    pooled = np.zeros((len(readings), sae.width), np.float32)
    reader = model.reader((layer,))
    padded = not reader.shares
    parts = whole(readings) if padded else shared(readings)
    read = 0
    for slice_ in slices(readings, parts, lambda: budget(model, padded=padded), padded=padded):
        (hidden,) = reader.read([readings[p.text].ids for p in slice_], [p.start for p in slice_])
        at, ends = places(readings, slice_)
        chosen = sae.encode(hidden[torch.tensor(at, device=hidden.device)]).float()
        for part, some in zip(slice_, torch.tensor_split(chosen, ends[:-1]), strict=True):
            value: Tensor = some.amax(0) if job.pooling == "max" else some.mean(0)
            pooled[part.text] = value.cpu().numpy()
        read += len(slice_)
        yield Progress(job.id, next(seq), done + read, total, f"Encoded {read} of {len(readings)} texts", None)
    return pooled
