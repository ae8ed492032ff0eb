"""The job ReadFeatures: what an SAE reads in a text, token by token."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inference.errors import InvalidRequest
from inference.saes.activations import read_texts
from inference.saes.sae import Sae
from inference.saes.sources import Sources
from inference.saes.texts import encoded, ids_of, ordinary, rebuilt, short
from inference.text import prompt_pieces
from inference.types import Progress, ReadFeatures, Result

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

MOST_TOP, MOST_OVERALL, MOST_FEATURES = 50, 1000, 100


def read_features(model: LoadedModel, job: ReadFeatures, sources: Sources) -> Iterator[Progress | Result]:
    """See `ReadFeatures`. Raises InvalidRequest or NotFound with a cure."""
    _check(job)
    ids = ids_of(model, job.text, job.messages)
    wrong = [place for place in job.sort_by if not 0 <= place < len(ids)]
    if wrong:
        raise InvalidRequest(
            "token_out_of_range", f"The text has tokens 0 to {len(ids) - 1}, not {wrong[0]}. Choose among those."
        )
    seq = count()
    sae = yield from opened(model, job.id, job.source, sources, seq, len(ids))
    sae.checked(job.features)
    places = [sae.place, sae.target] if sae.transcoder else [sae.place]
    h = target = None
    for found in read_texts(model, places, [ids]):
        yield Progress(job.id, next(seq), 0, len(ids), "Reading the text")
        if found is not None:
            h, target = found[1][0], found[1][-1]
    assert h is not None
    assert target is not None
    kept = ordinary(model, ids, h, sae.residual_norm if sae.place.residual is not None else None)
    reading = Reading(sae, job, kept)
    for part, latents in encoded(sae, h):
        reading.add(part, latents, h[part], target[part])
        yield Progress(job.id, next(seq), part.stop, len(ids), f"Encoded {part.stop:,} of {len(ids):,} tokens")
    pieces = prompt_pieces(model.tokenizer, ids)
    tokens = [[id, piece] for id, piece in zip(ids, pieces, strict=True)]
    left_out = [place for place, keep in enumerate(kept.tolist()) if not keep]
    yield Result(job.id, next(seq), {"tokens": tokens, **reading.payload(), "left_out": left_out})


def opened(
    model: LoadedModel, id: str, source: str, sources: Sources, seq: Iterator[int], total: int
) -> Generator[Progress, None, Sae]:
    """The SAE; its loading is no work of the engine's thread."""
    for sae in sources.opening(source, model):
        if sae is not None:
            return sae
        yield Progress(id, next(seq), 0, total, f"Loading {source}")
    raise AssertionError("opening ended without an SAE")


class Reading:
    """Gathers what the payload needs, chunk by chunk, without keeping the latents."""

    def __init__(self, sae: Sae, job: ReadFeatures, kept: Tensor):
        self._sae, self._job, self._kept = sae, job, kept.to(sae.W_dec.device)
        device = sae.W_dec.device
        self._top: list[list[list[float]]] = []
        self._values: dict[int, list[float]] = {index: [] for index in job.features}
        self._largest = torch.zeros(sae.width, dtype=sae.dtype, device=device)
        self._at = torch.zeros(sae.width, dtype=torch.long, device=device)
        self._sorted = torch.zeros(sae.width, dtype=sae.dtype, device=device)
        self._used = 0
        self._unexplained = self._square = 0.0
        self._sum: Tensor | float = 0.0

    @torch.inference_mode()
    def add(self, part: slice, latents: Tensor, h: Tensor, target: Tensor) -> None:
        kept = self._kept[part]
        sizes = latents.abs() if self._sae.kind == "abstopk" else latents
        indices = sizes.topk(min(self._job.top, self._sae.width), dim=1).indices
        signed = latents.gather(1, indices)
        self._top += [
            [[i, short(v)] for i, v in zip(*row, strict=True) if v]
            for row in zip(indices.tolist(), signed.tolist(), strict=True)
        ]
        for index, series in self._values.items():
            series += [short(v) for v in latents[:, index].tolist()]
        if places := [p - part.start for p in self._job.sort_by if part.start <= p < part.stop]:
            self._sorted += latents[places].sum(dim=0)
        some = latents[kept]
        if len(some):
            peak, at = sizes[kept].max(dim=0)
            places_kept = kept.nonzero()[:, 0] + part.start
            better = peak > self._largest.abs()
            self._largest = torch.where(better, some.gather(0, at[None])[0], self._largest)
            self._at = torch.where(better, places_kept[at], self._at)
            self._used += int((some != 0).sum())
            sae = self._sae
            again = sae.wanted(h)[kept] - sae.error(h)[kept] if sae.context else rebuilt(sae, some, h[kept])
            self._explain(again, target[kept])

    def _explain(self, rebuilt: Tensor, target: Tensor) -> None:
        """Sums for the share of variance explained: float64, since the mean is a large part of a residual."""
        wanted = self._sae.wanted(target).double()
        self._unexplained += float((wanted - rebuilt.double()).pow(2).sum())
        self._square += float(wanted.pow(2).sum())
        self._sum = self._sum + wanted.sum(dim=0)

    def payload(self) -> dict[str, Any]:
        tokens = int(self._kept.sum())
        job = self._job
        return {
            "top": self._top,
            "overall": self._best(self._largest, job.overall),
            "sorted": self._best(self._sorted, job.overall) if job.sort_by else [],
            "values": {str(index): series for index, series in self._values.items()},
            "explained_variance": self._explained(tokens),
            "l0": self._used / tokens if tokens else None,
        }

    def _explained(self, tokens: int) -> float | None:
        if tokens < 2 or not isinstance(self._sum, Tensor):
            return None
        variance = self._square - float(self._sum.pow(2).sum()) / tokens
        return 1 - self._unexplained / variance if variance > 0 else None

    def _best(self, by: Tensor, limit: int) -> list[list[float]]:
        values, indices = by.abs().topk(min(limit, self._sae.width))
        chosen = [i for i, v in zip(indices.tolist(), values.tolist(), strict=True) if v > 0]
        best, at = by[chosen].tolist(), self._at[chosen].tolist()
        return [[i, short(value), place] for i, value, place in zip(chosen, best, at, strict=True)]


def _check(job: ReadFeatures) -> None:
    for name, most in (("top", MOST_TOP), ("overall", MOST_OVERALL)):
        if not 0 <= getattr(job, name) <= most:
            raise InvalidRequest("bad_count", f"{name} must be 0 to {most}, not {getattr(job, name)}.")
    if len(job.features) > MOST_FEATURES:
        raise InvalidRequest("too_many_features", f"At most {MOST_FEATURES} features are traced at once. Name fewer.")
