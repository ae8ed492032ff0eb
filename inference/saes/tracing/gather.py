"""What `ReadActivations` gathers of one text from the activations at a source's site. Numbers are not rounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from inference.errors import InvalidRequest
from inference.saes.sae import Sae
from inference.saes.texts import encoded

MOST_KEPT = 2**25  # latents of a text that are held until the strongest are known; beyond, they are read again
MOST_ACTIVE = 500_000  # pairs in one answer, of all its texts

Attribution = Callable[[Sequence[int], Sequence[int]], list[list[float]]]  # (features, tokens) -> dfa of each


@dataclass(frozen=True)
class Site:
    """A text's activations where a source reads, [tokens, d_in]. `muted` is a token that counts as 0."""

    sae: Sae
    h: Tensor
    muted: int | None = None

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """The latents, some tokens at a time. Raises InvalidRequest("non_finite_activations")."""
        for part, latents in encoded(self.sae, self.h):
            if not torch.isfinite(latents).all():
                raise not_finite()
            if self.muted is not None and part.start <= self.muted < part.stop:
                latents = latents.clone()
                latents[self.muted - part.start] = 0
            yield part, latents

    def of(self, index: int) -> Iterator[list[float] | None]:
        """The values of one feature at last, None before: one dot product a token where the architecture allows."""
        if self.sae.needs_all:
            column = []
            for _, latents in self.parts():
                column += latents[:, index].tolist()
                yield None
            yield column
            return
        values = self.sae.latents(self.h, [index])[:, 0]
        if not torch.isfinite(values).all():
            raise not_finite()
        yield values.tolist()


def not_finite() -> InvalidRequest:
    return InvalidRequest(
        "non_finite_activations",
        "The model's numbers overflow on this text. Serve it with STEERBOARD_DTYPE=float32 or bfloat16.",
    )


@dataclass(frozen=True)
class Candidate:
    key: float
    order: int  # of its source
    index: int
    values: list[float]
    sum: float


@dataclass
class Strongest:
    """The features of one text that rank first, over all sources."""

    limit: int
    sort_by: tuple[int, ...]
    only: tuple[int, ...]
    candidates: list[Candidate] = field(default_factory=list)
    counts: dict[str, list[int]] = field(default_factory=dict)

    @torch.inference_mode()
    def add(self, site: Site, order: int) -> Iterator[None]:
        sae = site.sae
        peak = torch.full((sae.width,), -torch.inf, dtype=sae.dtype, device=sae.W_dec.device)
        total = torch.zeros_like(peak)
        counts: list[int] = []
        kept: list[Tensor] | None = [] if len(site.h) * sae.width <= MOST_KEPT else None
        for part, latents in site.parts():
            peak = torch.maximum(peak, latents.max(dim=0).values)
            if places := [place - part.start for place in self.sort_by if part.start <= place < part.stop]:
                total += latents[places].sum(dim=0)
            counts += (latents > 0).sum(dim=1).tolist()
            if kept is not None:
                kept.append(latents)
            yield
        chosen = self._best(total if self.sort_by else peak)
        pieces = []
        for latents in kept if kept is not None else (latents for _, latents in site.parts()):
            pieces.append(latents[:, chosen])
            if kept is None:
                yield
        self.counts[sae.id] = counts
        key = total if self.sort_by else peak
        for row, index in enumerate(chosen.tolist()):
            values = [value for piece in pieces for value in piece[:, row].tolist()]
            summed = float(total[index]) if self.sort_by else 0.0
            self.candidates.append(Candidate(float(key[index]), order, index, values, summed))
        self.candidates = sorted(self.candidates, key=lambda c: (-c.key, c.order, c.index))[: self.limit]

    def _best(self, key: Tensor) -> Tensor:
        """The first by size, equals by index."""
        among = torch.arange(len(key), device=key.device)
        if self.only:
            among = torch.tensor([i for i in sorted(set(self.only)) if i < len(key)], dtype=torch.long).to(key.device)
        return among[key[among].sort(descending=True, stable=True).indices[: self.limit]]


def top(site: Site, limit: int) -> Iterator[list[list[list[float]]] | None]:
    """[index, value] of the largest features at each token, equals by index; None before they are known."""
    found: list[list[list[float]]] = []
    limit = min(limit, site.sae.width)
    for _, latents in site.parts():
        values, indices = latents.topk(limit, dim=1)
        pairs = zip(values.tolist(), indices.tolist(), latents, strict=True)
        found += [_filled(v, i, row) for v, i, row in pairs]
        yield None
    yield found


def _filled(values: list[float], indices: list[int], row: Tensor) -> list[list[float]]:
    """Which of equal features `topk` names is its own affair; the last of them are named anew, by index."""
    last = values[-1]
    sure = sorted(((v, i) for v, i in zip(values, indices, strict=True) if v > last), key=lambda p: (-p[0], p[1]))
    ties = (row == last).nonzero()[: len(values) - len(sure), 0].tolist()
    return [[i, v] for v, i in (*sure, *((last, i) for i in ties))]


def active(site: Site, told: int = 0) -> Iterator[dict[str, list[list[float]]] | None]:
    """{index: [[token, value]]} of all that is not 0; None before. `told` pairs are in the answer already.

    Raises InvalidRequest("too_many_active").
    """
    found: dict[str, list[list[float]]] = {}
    for part, latents in site.parts():
        places = latents.nonzero()
        told += len(places)
        if told > MOST_ACTIVE:
            raise InvalidRequest(
                "too_many_active",
                f"More than {MOST_ACTIVE:,} activations are not 0. Send fewer or shorter texts, or a sparser source.",
            )
        values = latents[places[:, 0], places[:, 1]].tolist()
        for (token, index), value in zip(places.tolist(), values, strict=True):
            found.setdefault(str(index), []).append([token + part.start, value])
        yield None
    yield dict(sorted(found.items(), key=lambda item: int(item[0])))


def largest_at(values: Sequence[float]) -> int:
    """The first token at which a feature is largest."""
    return max(range(len(values)), key=lambda token: values[token])


def described(candidate: Candidate, sources: Sequence[str]) -> dict[str, Any]:
    return {
        "source": sources[candidate.order],
        "index": candidate.index,
        "values": candidate.values,
        "sum": candidate.sum,
        "dfa": None,
    }
