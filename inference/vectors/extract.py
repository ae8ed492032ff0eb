"""The jobs that turn contrastive pairs into a steering vector, or ask the tokenizer about them.

Generators: each `next()` does one small slice of work, so that an engine can decode tokens in between. Nothing here
depends on the clock but the estimates of remaining time: the same pairs on the same model give the same vector.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import transformers

from inference.errors import InvalidRequest
from inference.store import dump, seal, summary
from inference.types import (
    CheckPairs,
    CreateVector,
    Direction,
    LayerStats,
    Pair,
    Progress,
    Result,
    Site,
    SteeringVector,
)
from inference.vectors import spans, stats
from inference.vectors.methods import mean_difference
from inference.vectors.pooling import SINK_FACTOR, Pooler
from inference.vectors.recommend import recommend
from inference.vectors.slices import Estimate, budget, shared, slices, whole

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

T = TypeVar("T")

MIN_PAIRS = 4
PAIRS_PER_TURN = 32  # tokenised


def create_vector(model: LoadedModel, job: CreateVector) -> Iterator[Progress | Result]:
    """Build directions for all layers asked for. Progress counts texts, then layers.

    The Result's payload is {"vector": `store.summary`, "data": `store.dump`}. Raises InvalidRequest naming the pair
    or layer at fault and the way out.
    """
    layers = _check_job(model, job)
    seq, total = count(), 2 * len(job.pairs) + len(layers)

    readings: list[spans.Reading] = []
    for rows in _chunks(list(enumerate(job.pairs, 1)), PAIRS_PER_TURN):
        yield Progress(job.id, next(seq), 0, total, "Reading the pairs")
        readings += [_read(model, job, pair, side, row) for row, pair in rows for side in spans.sides(pair)]

    pooler = Pooler(readings, layers, model.d_model, model.special_ids)
    reader = model.reader(layers)
    padded = not reader.shares
    parts = whole(readings) if padded else shared(readings)
    started, done, estimate = time.monotonic(), 0, Estimate(readings, parts)
    for slice_ in slices(readings, parts, lambda: budget(model, padded=padded), padded=padded):
        texts, starts = [part.text for part in slice_], [part.start for part in slice_]
        pooler.add(reader.read([readings[i].ids for i in texts], starts), texts, starts)
        done += len(texts)
        eta = estimate.after(slice_, time.monotonic() - started)
        yield Progress(job.id, next(seq), done, total, f"Ran {done} of {len(readings)} texts", eta)

    directions, measured = [], []
    for index, layer in enumerate(layers):
        direction, stat = _measure(pooler, index, layer)
        directions.append(direction)
        measured.append(stat)
        yield Progress(job.id, next(seq), done + index + 1, total, f"Measured layer {layer}", 0.0)

    vector = _assemble(model, job, pooler, tuple(directions), tuple(measured))
    yield Result(job.id, next(seq), {"vector": summary(vector), "data": dump(vector)})


def check_pairs(model: LoadedModel, job: CheckPairs) -> Iterator[Progress | Result]:
    """What the tokenizer makes of pairs. Rows in the Result's payload count from 0; empty sides are allowed."""
    seq = count()
    merged: list[int] = []
    lengths: list[list[int]] = []
    for pairs in _chunks(job.pairs, PAIRS_PER_TURN):
        for pair in pairs:
            if any(spans.is_merged(model.tokenizer, pair.prompt, side) for side in spans.sides(pair) if side):
                merged.append(len(lengths))
            lengths.append(spans.lengths(model.tokenizer, pair))
        yield Progress(job.id, next(seq), len(lengths), len(job.pairs), "Tokenising")
    yield Result(job.id, next(seq), {"merged": merged, "lengths": lengths})


def _check_job(model: LoadedModel, job: CreateVector) -> tuple[int, ...]:
    if len(job.pairs) < MIN_PAIRS:
        raise InvalidRequest(
            "too_few_pairs",
            f"A vector needs at least {MIN_PAIRS} pairs and this dataset has {len(job.pairs)}. Add more.",
        )
    empty = [i for i, pair in enumerate(job.pairs, 1) if not all(side.strip() for side in spans.sides(pair))]
    if empty:
        rows = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        raise InvalidRequest("empty_side", f"An empty side in pair {rows}. Write both sides, or delete the pair.")
    if all(pair.positive == pair.negative for pair in job.pairs):
        raise InvalidRequest(
            "identical_sides",
            "The two sides of every pair are the same, so there is nothing to tell apart. Edit one side.",
        )
    wrong = sorted(layer for layer in job.layers if not 0 <= layer < model.n_layers)
    if wrong:
        raise InvalidRequest(
            "layer_out_of_range",
            f"{model.id} has layers 0 to {model.n_layers - 1}, not {wrong[0]}. Choose among those.",
        )
    return tuple(sorted(set(job.layers))) or tuple(range(model.n_layers))


def _read(model: LoadedModel, job: CreateVector, pair: Pair, side: str, row: int) -> spans.Reading:
    try:
        reading = spans.read_side(model.tokenizer, job, pair, side, model.special_ids)
    except InvalidRequest as error:
        raise InvalidRequest(error.code, f"Pair {row}: {error.message}") from error
    if len(reading.ids) > model.context_length:
        raise InvalidRequest(
            "text_too_long",
            f"Pair {row} has a text of {len(reading.ids)} tokens and {model.id} reads at most {model.context_length}. "
            "Shorten it.",
        )
    return reading


def _measure(pooler: Pooler, index: int, layer: int) -> tuple[Direction, LayerStats]:
    pos, neg = pooler.features[index, 0::2], pooler.features[index, 1::2]
    values = mean_difference(pos, neg)
    if not values.any():
        raise InvalidRequest(
            "zero_vector",
            f"At layer {layer} the tokens that are read are the same on both sides, so the vector is zero. "
            "Read another span, or make the sides differ before their last token.",
        )
    scores = stats.held_out_projections(pos, neg)
    stat = LayerStats(
        layer=layer,
        norm=float(np.linalg.norm(values)),
        residual_norm=float(pooler.residual_norms[index]),
        sink_norm=float(pooler.sink_norms[index]),
        auc=stats.auc(*scores),
        d_prime=stats.d_prime(*scores),
        split_half=stats.split_half(pos, neg),
    )
    return Direction(Site(layer), values), stat


def _assemble(
    model: LoadedModel,
    job: CreateVector,
    pooler: Pooler,
    directions: tuple[Direction, ...],
    measured: tuple[LayerStats, ...],
) -> SteeringVector:
    advice = recommend(measured, model.n_layers)
    return seal(
        SteeringVector(
            id="",
            model=model.id,
            revision=model.revision,
            directions=directions,
            method=job.method,
            read_positions=spans.describe(job),
            residual_norms={s.layer: s.residual_norm for s in measured},
            stats=measured,
            recommended_layer=advice.layer,
            recommended_strength=advice.strength,
            reason=advice.reason,
            dataset_digest=job.dataset_digest or _digest(job.pairs),
            n_pairs=len(job.pairs),
            provenance=_provenance(model, job, pooler),
        )
    )


def _provenance(model: LoadedModel, job: CreateVector, pooler: Pooler) -> dict[str, Any]:
    template = getattr(model.tokenizer, "chat_template", None) if job.chat else None
    return {
        "pooling": job.pooling,
        "span": job.span,
        "chat": job.chat,
        "chat_template_sha256": hashlib.sha256(str(template).encode()).hexdigest() if template else None,
        "dtype": str(model.dtype).removeprefix("torch."),
        "tokens": sum(len(r.ids) for r in pooler.readings),
        "tokens_read": sum(len(r.positions) for r in pooler.readings),
        "sink_factor": SINK_FACTOR,
        "texts_read_at_a_sink": {str(k): int(n) for k, n in zip(pooler.layers, pooler.sink_reads, strict=True) if n},
        "folds": stats.FOLDS,
        "halves": stats.HALVES,
        "seed": stats.SEED,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _digest(pairs: Sequence[Pair]) -> str:
    text = json.dumps([pair.to_wire() for pair in pairs], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[i : i + size] for i in range(0, len(items), size))
