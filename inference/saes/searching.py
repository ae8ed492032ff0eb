"""The job SearchFeatures: which features tell an example's texts from ordinary ones."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inference.errors import InvalidRequest
from inference.saes.activations import read_texts
from inference.saes.reading import opened
from inference.saes.sae import Sae
from inference.saes.sources import Sources
from inference.saes.texts import encoded, ids_of, ordinary, short
from inference.types import Progress, Result, SearchFeatures

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

MOST_FOUND = 1000


def search_features(model: LoadedModel, job: SearchFeatures, sources: Sources) -> Iterator[Progress | Result]:
    """See `SearchFeatures`. Without `against` and without a corpus index the baseline is 0."""
    if not any(text.strip() for text in job.texts):
        raise InvalidRequest("empty_text", "There is no example to search by. Paste a text that shows what you mean.")
    if not 1 <= job.limit <= MOST_FOUND:
        raise InvalidRequest("bad_count", f"limit must be 1 to {MOST_FOUND}, not {job.limit}.")
    seq = count()
    total = len(job.texts) + len(job.against)
    sae = yield from opened(model, job.id, job.source, sources, seq, total)
    means = yield from _means(model, job, sae, job.texts, seq, 0)
    baseline = torch.zeros_like(means.mean)
    if any(text.strip() for text in job.against):
        baseline = (yield from _means(model, job, sae, job.against, seq, len(job.texts))).mean
    elif (index := sources.index(job.source)) is not None and index.width == sae.width:
        baseline = torch.from_numpy(index.mean).to(baseline)
    yield Result(job.id, next(seq), {"found": _found(model, means, baseline, job.limit)})


class Means:
    """Of every feature over ordinary tokens: its mean, and where it was largest."""

    def __init__(self, sae: Sae):
        device = sae.W_dec.device
        self.tokens = 0
        self.sums = torch.zeros(sae.width, dtype=torch.float64, device=device)
        self.largest = torch.zeros(sae.width, device=device)
        self.token = torch.full((sae.width,), -1, dtype=torch.long, device=device)

    @property
    def mean(self) -> Tensor:
        return self.sums / max(self.tokens, 1)

    @torch.inference_mode()
    def add(self, latents: Tensor, ids: Tensor, kept: Tensor) -> None:
        some = latents[kept].float().abs()
        if not len(some):
            return
        self.tokens += len(some)
        self.sums += some.sum(dim=0)
        peak, at = some.max(dim=0)
        better = peak > self.largest
        self.largest = torch.where(better, peak, self.largest)
        self.token = torch.where(better, ids[kept][at], self.token)


def _means(
    model: LoadedModel, job: SearchFeatures, sae: Sae, texts: Sequence[str], seq: Iterator[int], before: int
) -> Generator[Progress, None, Means]:
    total = len(job.texts) + len(job.against)
    wanted = [ids_of(model, text, None) for text in texts if text.strip()]
    means, typical = Means(sae), sae.residual_norm if sae.place.residual is not None else None
    for found in read_texts(model, [sae.place], wanted):
        if found is None:
            yield Progress(job.id, next(seq), before, total, "Reading")
            continue
        number, (h,) = found
        ids = torch.tensor(wanted[number], device=h.device)
        kept = ordinary(model, wanted[number], h, typical).to(h.device)
        for part, latents in encoded(sae, h):
            means.add(latents, ids[part], kept[part])
            yield Progress(job.id, next(seq), before + number, total, f"Read {before + number + 1} of {total} texts")
    return means


def _found(model: LoadedModel, means: Means, baseline: Tensor, limit: int) -> list[dict[str, Any]]:
    lift = means.mean - baseline
    values, indices = lift.topk(min(limit, len(lift)))
    return [
        {
            "index": i,
            "mean": short(float(means.mean[i])),
            "baseline": short(float(baseline[i])),
            "lift": short(value),
            "max": short(float(means.largest[i])),
            "token": model.vocabulary.text(int(means.token[i])),
        }
        for i, value in zip(indices.tolist(), values.tolist(), strict=True)
        if value > 0
    ]
