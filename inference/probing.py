"""The job that reads probes at each token of texts and conversations, and the reading that detectors are made by."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inference.errors import InvalidRequest
from inference.prepare import MAX_CHARACTERS_PER_TOKEN
from inference.reading import Read, compile_read
from inference.text import prompt_pieces
from inference.types import Message, Progress, ReadProbes, Result
from inference.vectors import spans
from inference.vectors.pooling import SINK_FACTOR
from inference.vectors.slices import Part, budget, shared, slices, whole

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel
    from inference.saes.sae import Sae
    from inference.saes.sources import Sources

MAX_PROBES, MAX_TEXTS, MAX_TOKENS = 64, 1024, 200_000  # of one job


@dataclass(frozen=True)
class Tokens:
    """Of one text, layer by layer: float64[probes, positions], and the residual's size float32[positions]."""

    scores: list[np.ndarray] = field(default_factory=list)
    norms: list[np.ndarray] = field(default_factory=list)


def read_probes(model: LoadedModel, job: ReadProbes, sources: Sources | None = None) -> Iterator[Progress | Result]:
    """See `ReadProbes`. Texts before conversations, each in the order given. Raises InvalidRequest or NotFound."""
    seq, total = count(), len(job.texts) + len(job.conversations)
    _check_reading(job, total)
    for source in dict.fromkeys(f.source for p in job.probes for f in p.features):
        yield from open_source(model, source, sources, job.id, seq, total)
    reads = [compile_read(probe, model) for probe in job.probes]
    by_layer: dict[int, list[Read]] = {}
    for read in reads:
        if read.layer < 0:
            raise InvalidRequest(
                "probe_site", "A probe on the embedding is read while text is written only. Use one behind a block."
            )
        by_layer.setdefault(read.layer, []).append(read)
    by_layer = {layer: by_layer[layer] for layer in sorted(by_layer)}
    readings = []
    for place, ids in enumerate(_ids(model, job)):
        if place % 8 == 0:
            yield Progress(job.id, next(seq), 0, total, "Reading the texts")
        readings.append(spans.Reading(tuple(ids), tuple(range(len(ids)))))
    if (found := sum(len(r.ids) for r in readings)) > MAX_TOKENS:
        raise InvalidRequest(
            "too_many_tokens", f"The texts have {found:,} tokens and may have {MAX_TOKENS:,}. Split them into several."
        )
    tokens = yield from read_tokens(model, job.id, readings, by_layer, seq, 0, total)
    order = [(sorted(by_layer).index(r.layer), by_layer[r.layer].index(r)) for r in reads]
    yield Result(
        job.id,
        next(seq),
        {"texts": [_told(model, r, t, order, job.norms) for r, t in zip(readings, tokens, strict=True)]},
    )


def read_tokens(
    model: LoadedModel,
    id: str,
    readings: Sequence[spans.Reading],
    by_layer: dict[int, list[Read]],
    seq: Iterator[int],
    done: int,
    total: int,
) -> Generator[Progress, None, list[Tokens]]:
    """What probes read at the positions of each text."""
    tokens = [Tokens() for _ in readings]
    reader, layers = model.reader(tuple(by_layer)), list(by_layer.values())
    padded = not reader.shares
    parts = whole(readings) if padded else shared(readings)
    started, read = time.monotonic(), 0
    for slice_ in slices(readings, parts, lambda: budget(model, padded=padded), padded=padded):
        hidden = reader.read([readings[p.text].ids for p in slice_], [p.start for p in slice_])
        at, ends = places(readings, slice_)
        for reads, values in zip(layers, hidden, strict=True):
            chosen = values[torch.tensor(at, device=values.device)]
            scores = torch.stack([r(chosen) for r in reads]).double().cpu().numpy()
            sizes = chosen.float().norm(dim=-1).cpu().numpy()
            parts_of = zip(slice_, np.split(scores, ends[:-1], axis=1), np.split(sizes, ends[:-1]), strict=True)
            for part, some, norms in parts_of:
                tokens[part.text].scores.append(some)
                tokens[part.text].norms.append(norms)
        read += len(slice_)
        left = (time.monotonic() - started) / read * (len(readings) - read)
        yield Progress(id, next(seq), done + read, total, f"Read {read} of {len(readings)} texts", round(left, 1))
    _refuse_overflow([text.scores for text in tokens])
    return tokens


def places(readings: Sequence[spans.Reading], slice_: Sequence[Part]) -> tuple[list[int], list[int]]:
    """Where the positions of a slice's texts lie in what is read of it, and where each text's end among them."""
    at: list[int] = []
    ends, begin = [], 0
    for part in slice_:
        reading = readings[part.text]
        at += [begin + p - part.start for p in reading.positions]
        ends.append(len(at))
        begin += len(reading.ids) - part.start
    return at, ends


def open_source(
    model: LoadedModel, id: str, sources: Sources | None, job: str, seq: Iterator[int], total: int
) -> Generator[Progress, None, Sae]:
    if sources is None:
        raise InvalidRequest("no_sources", "This server has no sparse autoencoders. Use a detector on residuals.")
    for sae in sources.opening(id, model):
        if sae is not None:
            return sae
        yield Progress(job, next(seq), 0, total, f"Loading {id}", None)
    raise AssertionError("a source opens or refuses")


def _check_reading(job: ReadProbes, total: int) -> None:
    if not 1 <= len(job.probes) <= MAX_PROBES:
        raise InvalidRequest("bad_probes", f"Give 1 to {MAX_PROBES} probes, not {len(job.probes)}.")
    if not 1 <= total <= MAX_TEXTS:
        raise InvalidRequest("bad_texts", f"Give 1 to {MAX_TEXTS:,} texts and conversations, not {total:,}.")


def _ids(model: LoadedModel, job: ReadProbes) -> Iterator[list[int]]:
    """Tokens as a completion would have them: a text as its prompt, a conversation through the chat template."""
    every: list[str | tuple[Message, ...]] = [*job.texts, *job.conversations]
    for place, given in enumerate(every, 1):
        what = f"Text {place}" if place <= len(job.texts) else f"Conversation {place - len(job.texts)}"
        content = given if isinstance(given, str) else "".join(m.content for m in given)
        if not given or not content:
            raise InvalidRequest("empty_text", f"{what} is empty. Write something, or leave it out.")
        if not content.isascii() and any("\ud800" <= c <= "\udfff" for c in content):
            raise InvalidRequest("broken_text", f"{what} holds half a character. Type or import it again as UTF-8.")
        size = f"{len(content):,} characters"
        fits = len(content) <= model.context_length * MAX_CHARACTERS_PER_TOKEN
        if fits:
            ids = model.encode_prompt(given) if isinstance(given, str) else model.encode_chat(given)
            size, fits = f"{len(ids):,} tokens", len(ids) <= model.context_length
        if not fits:
            raise InvalidRequest(
                "text_too_long", f"{what} has {size}; {model.id} reads {model.context_length:,} tokens. Shorten it."
            )
        yield ids


def _told(
    model: LoadedModel, reading: spans.Reading, read: Tokens, order: list[tuple[int, int]], norms: bool
) -> dict[str, Any]:
    special = np.array([token in model.special_ids for token in reading.ids])
    return {
        "tokens": [list(pair) for pair in zip(reading.ids, prompt_pieces(model.tokenizer, reading.ids), strict=True)],
        "scores": [read.scores[layer][place].tolist() for layer, place in order],
        "left_out": np.flatnonzero(special | _sinks(read.norms, special)).tolist(),
        **({"norms": [read.norms[layer].tolist() for layer, _ in order]} if norms else {}),
    }


def _sinks(norms: Sequence[np.ndarray], special: np.ndarray) -> np.ndarray:
    """bool[tokens]: those many times as large as the text's ordinary ones, at any of the layers."""
    usual = ~special if not special.all() else special
    return np.any([sizes > SINK_FACTOR * np.median(sizes[usual]) for sizes in norms], axis=0)


def _refuse_overflow(tokens: Sequence[Sequence[np.ndarray]]) -> None:
    for place, text in enumerate(tokens, 1):
        if not all(np.isfinite(scores).all() for scores in text):
            raise InvalidRequest(
                "non_finite_activations",
                f"The model's numbers overflow or are undefined in text {place}. Serve it with "
                "STEERBOARD_DTYPE=float32 or bfloat16, or leave that text out.",
            )
