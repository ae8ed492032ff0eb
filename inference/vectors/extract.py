"""The jobs that turn contrastive pairs into a steering vector, or ask the tokenizer about them.

Generators: each `next()` does one small slice of work, so that an engine can decode tokens in between. Nothing here
depends on the clock but the estimates of remaining time: the same pairs on the same model give the same vector.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
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
    Extraction,
    LayerStats,
    Pair,
    Progress,
    Result,
    Site,
    SteeringVector,
)
from inference.vectors import spans, stats
from inference.vectors.doubts import ENOUGH, doubts
from inference.vectors.measure import FEWEST, HALVES, Measured, measure
from inference.vectors.methods import MEANS
from inference.vectors.pooling import SINK_FACTOR, Pooler
from inference.vectors.recommend import recommend
from inference.vectors.shots import shown
from inference.vectors.slices import Estimate, budget, shared, slices, stops, whole

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

T = TypeVar("T")

PAIRS_PER_TURN = 32  # tokenised


def create_vector(model: LoadedModel, job: CreateVector) -> Iterator[Progress | Result | None]:
    """Build directions for all layers asked for. Progress counts texts, then layers; None is a pause.

    The Result's payload is {"vector": `store.summary`, "data": `store.dump`, "warnings": [{"code", "message", "rows"
    from 0}]}. Raises InvalidRequest naming the pair or layer at fault and the way out.
    """
    layers = check_job(model, job, fewest=1 if job.few or job.method == "prompt_difference" else FEWEST)
    seq, texts = count(), 2 * len(job.pairs)
    total = texts + len(layers)
    readings = yield from read_pairs(model, job, range(len(job.pairs)), seq, total)
    pooler = yield from read_residuals(model, job.id, readings, layers, seq, total)

    built = []
    for index, layer in enumerate(layers):
        pos, neg = pooler.features[index, 0::2], pooler.features[index, 1::2]
        for found in measure(job.method, pos, neg):
            done = texts + index + (found is not None)
            yield Progress(job.id, next(seq), done, total, f"Measured layer {layer}", 0.0 if found else None)
        built.append(layer_of(pooler, index, found))

    vector = assemble(model, job, pooler, built)
    warnings = [doubt.wire() for doubt in doubts(job.pairs)]
    yield Result(job.id, next(seq), {"vector": summary(vector), "data": dump(vector), "warnings": warnings})


def read_pairs(
    model: LoadedModel, job: Extraction, rows: Sequence[int], seq: Iterator[int], total: int
) -> Generator[Progress, None, list[spans.Reading]]:
    """Both sides of the pairs `rows`, tokenised, positive ones at even places."""
    readings: list[spans.Reading] = []
    for some in _chunks(rows, PAIRS_PER_TURN):
        yield Progress(job.id, next(seq), 0, total, "Reading the pairs")
        readings += [_read(model, job, row, side) for row in some for side in (0, 1)]
    return readings


def read_residuals(
    model: LoadedModel,
    id: str,
    readings: Sequence[spans.Reading],
    layers: Sequence[int],
    seq: Iterator[int],
    total: int,
) -> Generator[Progress | None, None, Pooler]:
    """The model's residuals of `readings` at `layers`, pooled. None is a pause between layers."""
    pooler = Pooler(readings, layers, model.d_model, model.special_ids)
    reader = model.reader(layers)
    padded = not reader.shares
    pausing = not padded and len(layers) == layers[-1] + 1
    parts = whole(readings) if padded else shared(readings)
    started, done, estimate = time.monotonic(), 0, Estimate(readings, parts)
    for slice_ in slices(readings, parts, lambda: budget(model, padded=padded, pausing=pausing), padded=padded):
        texts, starts = [part.text for part in slice_], [part.start for part in slice_]
        halts = stops(model, len(layers), estimate.tokens(slice_)) if pausing else ()
        for taken in pooler.add(reader.read([readings[i].ids for i in texts], starts), texts, starts):
            if taken in halts:
                yield None
        done += len(texts)
        eta = estimate.after(slice_, time.monotonic() - started)
        yield Progress(id, next(seq), done, total, f"Ran {done} of {len(readings)} texts", eta)
    return pooler


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


def check_job(model: LoadedModel, job: Extraction, *, fewest: int) -> tuple[int, ...]:
    """The layers to read. Raises InvalidRequest for what gives no direction."""
    if len(job.pairs) < fewest:
        raise InvalidRequest(
            "too_few_pairs",
            f"{fewest} pairs are needed, so that some can be held out to measure by, and this dataset has "
            f"{len(job.pairs)}. Add more; {ENOUGH} make a direction reliable.",
        )
    if job.method == "few_shot" and not 1 <= job.shots < len(job.pairs):
        raise InvalidRequest(
            "bad_shots",
            f"{job.shots} examples cannot be shown before each of {len(job.pairs)} pairs. Choose 1 to "
            f"{len(job.pairs) - 1}.",
        )
    if job.window < 1:
        raise InvalidRequest("bad_window", f"A window of {job.window} tokens holds nothing. Choose 1 or more.")
    empty = [i for i, pair in enumerate(job.pairs, 1) if not all(map(str.strip, spans.sides(pair)))]
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


def _read(model: LoadedModel, job: Extraction, row: int, side: int) -> spans.Reading:
    try:
        reading = _reading(model, job, row, side)
    except InvalidRequest as error:
        raise InvalidRequest(error.code, f"Pair {row + 1}: {error.message}") from error
    if len(reading.ids) > model.context_length:
        raise InvalidRequest(
            "text_too_long",
            f"Pair {row + 1} has a text of {len(reading.ids)} tokens and {model.id} reads at most "
            f"{model.context_length}. Shorten it.",
        )
    end = reading.positions[-1] + 1  # what follows has no say in what is read
    return spans.Reading(reading.ids[:end], reading.positions)


def _reading(model: LoadedModel, job: Extraction, row: int, side: int) -> spans.Reading:
    tokenizer, special, pair = model.tokenizer, model.special_ids, job.pairs[row]
    if job.method == "few_shot":
        prompt = shown(tokenizer, job.pairs, row, side, job.shots, chat=job.chat)
        return spans.read_end(tokenizer, prompt, special, chat=job.chat)
    if job.method == "prompt_difference":
        prompt = pair.prompt + spans.sides(pair)[side]
        prompt = spans.chat_prompt(tokenizer, prompt) if job.chat else prompt
        return spans.read_end(tokenizer, prompt, special, chat=job.chat)
    return spans.read_side(tokenizer, job, pair, spans.sides(pair)[side], special)


@dataclass(frozen=True)
class Layer:
    """What one layer gave. `reference`: where the negatives lie along the unit direction, on average."""

    direction: Direction
    stat: LayerStats
    reference: float
    facts: dict[str, Any]


def layer_of(pooler: Pooler, index: int, found: Measured | None) -> Layer:
    assert found is not None
    layer, values = pooler.layers[index], found.values
    if not values.any():
        raise InvalidRequest(
            "zero_vector",
            f"At layer {layer} the tokens that are read are the same on both sides, so the vector is zero. "
            "Read another span, or make the sides differ before their last token.",
        )
    norm = float(np.linalg.norm(values))
    stat = LayerStats(
        layer=layer,
        norm=norm,
        residual_norm=float(pooler.residual_norms[index]),
        sink_norm=float(pooler.sink_norms[index]),
        auc=found.auc,
        d_prime=found.d_prime,
        split_half=found.split_half,
    )
    negatives = pooler.features[index, 1::2].mean(axis=0, dtype=np.float64)
    return Layer(Direction(Site(layer), values), stat, float(negatives @ values / norm), found.facts)


def assemble(model: LoadedModel, job: CreateVector, pooler: Pooler, built: Sequence[Layer]) -> SteeringVector:
    measured = tuple(layer.stat for layer in built)
    advice = recommend(measured, model.n_layers, measured=len(job.pairs) >= FEWEST)
    return seal(
        SteeringVector(
            id="",
            model=model.id,
            revision=model.revision,
            directions=tuple(layer.direction for layer in built),
            method=job.method,
            read_positions=spans.describe(job),
            residual_norms={s.layer: s.residual_norm for s in measured},
            stats=measured,
            recommended_layer=advice.layer,
            recommended_strength=advice.strength,
            reason=advice.reason,
            dataset_digest=job.dataset_digest or _digest(job.pairs),
            n_pairs=len(job.pairs),
            provenance=_provenance(model, job, pooler, built),
            references={layer.stat.layer: layer.reference for layer in built},
        )
    )


def _provenance(model: LoadedModel, job: CreateVector, pooler: Pooler, built: Sequence[Layer]) -> dict[str, Any]:
    chosen = {str(layer.stat.layer): layer.facts for layer in built if layer.facts}
    template = getattr(model.tokenizer, "chat_template", None) if job.chat else None
    return {
        "pooling": job.pooling,
        **({"window": job.window} if job.pooling == "window" else {}),
        "span": job.span,
        "chat": job.chat,
        "chat_template_sha256": hashlib.sha256(str(template).encode()).hexdigest() if template else None,
        "dtype": str(model.dtype).removeprefix("torch."),
        "tokens": sum(len(r.ids) for r in pooler.readings),
        "tokens_read": sum(len(r.positions) for r in pooler.readings),
        "sink_factor": SINK_FACTOR,
        "texts_read_at_a_sink": {str(k): int(n) for k, n in zip(pooler.layers, pooler.sink_reads, strict=True) if n},
        "folds": stats.FOLDS,
        "halves": stats.HALVES if job.method in MEANS else HALVES,
        **({"shots": job.shots} if job.method == "few_shot" else {}),
        **({"chosen": chosen} if chosen else {}),
        **({"warnings": [doubt.message for doubt in odd]} if (odd := doubts(job.pairs)) else {}),
        "seed": stats.SEED,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _digest(pairs: Sequence[Pair]) -> str:
    text = json.dumps([pair.to_wire() for pair in pairs], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[i : i + size] for i in range(0, len(items), size))
