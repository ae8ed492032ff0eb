"""Reading texts for `ReadActivations`: all side by side, group by group, then one source after the other."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inference.errors import InvalidRequest
from inference.saes.activations import read_texts
from inference.saes.places import Place, place_of
from inference.saes.reading import opened
from inference.saes.sae import Sae
from inference.saes.sources import Sources
from inference.saes.tracing.attention import attribute
from inference.saes.tracing.gather import Site, Strongest, active, described, largest_at, not_finite, top
from inference.tokens import encode, shown
from inference.types import Progress, ReadActivations, Result

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

MOST_TEXTS, MOST_LIMIT, MOST_SOURCES = 64, 1000, 256
MOST_TOLD = 2_000_000  # numbers in one answer: what is told of each token, times all tokens
MOST_NUMBERS = 2**26  # activations that are held at once: texts of a group, at all places


def read_activations(model: LoadedModel, job: ReadActivations, sources: Sources) -> Iterator[Progress | Result]:
    """See `ReadActivations`. Raises InvalidRequest or NotFound with a cure."""
    check(job)
    texts = [_begun(model, job, number) for number in range(len(job.texts))]
    check_size(job, sum(map(len, texts)))
    yield from Trace(model, job, sources, texts).run()


class Trace:
    """One job on its way."""

    def __init__(self, model: LoadedModel, job: ReadActivations, sources: Sources, texts: list[list[int]]):
        self.model, self.job, self.sources, self.texts = model, job, sources, texts
        bos = model.tokenizer.bos_token_id
        self.answers: list[dict[str, Any]] = [
            {**shown(model, ids), "bos": [place for place, id in enumerate(ids) if id == bos]} for ids in texts
        ]
        self.total = sum(map(len, texts)) * max(1, len(job.sources))
        self._seq, self._done, self._told_active = count(), 0, 0

    def run(self) -> Iterator[Progress | Result]:
        places = yield from self._places()
        for group in self._groups(len(set(places))):
            unique = list(dict.fromkeys(places))
            read: dict[int, dict[Place, Tensor]] = {}
            for found in read_texts(self.model, unique, [self.texts[i] for i in group]):
                if found is not None:
                    number, activations = found
                    if not all(torch.isfinite(h).all() for h in activations):
                        raise not_finite()
                    read[group[number]] = dict(zip(unique, activations, strict=True))
                yield self._progress("Reading the texts")
            yield from self._of_vector(read, unique[0]) if self.job.vector is not None else self._of(read, places)
        yield Result(self.job.id, next(self._seq), {"texts": self.answers})

    def _places(self) -> Generator[Progress, None, list[Place]]:
        """Where each source reads; what was never loaded has to be, to know."""
        if self.job.vector is not None:
            return [_place(self.model, self.job)]
        places = []
        for id in self.job.sources:
            place = self.sources.place(id)
            if place is None:
                place = (yield from self._opened(id)).place
            places.append(place)
        return places

    def _opened(self, id: str) -> Generator[Progress, None, Sae]:
        return (yield from opened(self.model, self.job.id, id, self.sources, self._seq, self.total))

    def _groups(self, places: int) -> Iterator[list[int]]:
        """Texts whose activations fit into memory together; at least one."""
        most = max(1, MOST_NUMBERS // (places * self.model.d_model))
        group: list[int] = []
        size = 0
        for number, ids in enumerate(self.texts):
            if group and size + len(ids) > most:
                yield group
                group, size = [], 0
            group.append(number)
            size += len(ids)
        yield group

    def _of_vector(self, read: dict[int, dict[Place, Tensor]], place: Place) -> Iterator[Progress]:
        for number, activations in read.items():
            h = activations[place]
            assert self.job.vector is not None
            if h.shape[1] != len(self.job.vector):
                raise InvalidRequest(
                    "wrong_size",
                    f"The vector has {len(self.job.vector):,} numbers, and {self.job.hook} of {self.model.id} has "
                    f"{h.shape[1]:,}. Send one number for each of its dimensions.",
                )
            values = h @ torch.from_numpy(self.job.vector).to(h)
            if not torch.isfinite(values).all():
                raise not_finite()
            self.answers[number] |= {"values": values.tolist(), "dfa": None}
            yield self._progress("Read", len(h))

    def _of(self, read: dict[int, dict[Place, Tensor]], places: Sequence[Place]) -> Iterator[Progress]:
        job = self.job
        ranked = {number: Strongest(job.limit, job.sort_by, job.features) for number in read}
        for order, (id, place) in enumerate(zip(job.sources, places, strict=True)):
            sae = yield from self._opened(id)
            if job.want != "strongest" or len(job.sources) == 1:
                sae.checked(job.features)
            for number, activations in read.items():
                ids, h = self.texts[number], activations[place]
                muted = 0 if job.ignore_bos and ids[:1] == [self.model.tokenizer.bos_token_id] else None
                site = Site(sae, h, muted)
                for _ in self._gather(number, site, ranked[number], order):
                    yield self._progress(f"Reading with {id}")
                self._done += len(h)
        if job.want == "strongest":
            for number, found in ranked.items():
                listed = [described(candidate, job.sources) for candidate in found.candidates]
                self.answers[number] |= {"found": listed, "counts": found.counts}
        if job.attention and job.want in ("values", "strongest"):
            yield from self._attribute(list(read), places)

    def _attribute(self, numbers: Sequence[int], places: Sequence[Place]) -> Iterator[Progress]:
        """Give each feature that reads the heads' mix its `dfa`, source by source."""
        for id, place in zip(self.job.sources, places, strict=True):
            if place.point != "z":
                continue
            sae = yield from self._opened(id)
            told = [(number, self._told(number, id)) for number in numbers]
            asked = [
                (self.texts[number], place.layer, [(column, largest_at(each["values"])) for column, each in columns])
                for number, found in told
                if (columns := [(c, each) for i, each in found if (c := sae.encoder_column(i)) is not None])
            ]
            if not asked:
                continue
            given: list[list[list[float]]] = []
            for progress in attribute(self.model, self.job, asked, given):
                yield replace(progress, seq=next(self._seq))
            listed = [each for _, found in told for _, each in found]
            for each, dfa in zip(listed, (row for rows in given for row in rows), strict=False):
                each["dfa"] = dfa

    def _told(self, number: int, source: str) -> list[tuple[int, dict[str, Any]]]:
        """The features of a source that a text's answer has so far, by index."""
        answer = self.answers[number]
        if self.job.want == "values":
            return [(self.job.features[0], answer)]
        return [(found["index"], found) for found in answer["found"] if found["source"] == source]

    def _gather(self, number: int, site: Site, ranked: Strongest, order: int) -> Iterator[None]:
        job, answer = self.job, self.answers[number]
        match job.want:
            case "strongest":
                yield from ranked.add(site, order)
            case "values":
                for values in site.of(job.features[0]):
                    if values is not None and job.ignore_bos:
                        values = [0.0 if place in answer["bos"] else value for place, value in enumerate(values)]
                    answer |= {"values": values, "dfa": None}
                    yield None
            case "top":
                for found in top(site, job.limit):
                    answer |= {"top": found}
                    yield None
            case "active":
                for pairs in active(site, self._told_active):
                    if pairs is not None:
                        answer |= {"active": pairs}
                        self._told_active += sum(map(len, pairs.values()))
                    yield None

    def _progress(self, note: str, more: int = 0) -> Progress:
        self._done += more
        return Progress(self.job.id, next(self._seq), min(self._done, self.total), self.total, note)


def check(job: ReadActivations) -> None:
    """Raises InvalidRequest for what no model could answer."""
    if not 1 <= len(job.texts) <= MOST_TEXTS:
        raise InvalidRequest("bad_count", f"Send 1 to {MOST_TEXTS} texts, not {len(job.texts)}.")
    if (job.vector is None) == (not job.sources) or (job.vector is not None and job.want != "values"):
        raise InvalidRequest("one_input", "Give sources, or a vector with its hook to read values of; not both.")
    if len(job.sources) > (MOST_SOURCES if job.want == "strongest" else 1):
        raise InvalidRequest("bad_count", f"{job.want} reads one source at a time. Name one.")
    if job.want == "values" and job.vector is None and len(job.features) != 1:
        raise InvalidRequest("bad_count", f"values reads one feature, not {len(job.features)}. Name one.")
    if not 1 <= job.limit <= MOST_LIMIT:
        raise InvalidRequest("bad_count", f"The number of results must be 1 to {MOST_LIMIT:,}, not {job.limit}.")


def check_size(job: ReadActivations, tokens: int) -> None:
    """Raises InvalidRequest for an answer that would be too large, before anything is read."""
    if job.want not in ("top", "strongest"):
        return
    told = tokens * (job.limit + (len(job.sources) if job.want == "strongest" else 0))
    if told > MOST_TOLD:
        raise InvalidRequest(
            "answer_too_large",
            f"{tokens:,} tokens with {job.limit:,} results make {told:,} numbers, and an answer holds {MOST_TOLD:,}. "
            "Send fewer or shorter texts, or ask for fewer results.",
        )


def _begun(model: LoadedModel, job: ReadActivations, number: int) -> list[int]:
    """Raises InvalidRequest, saying which text where there are several."""
    text, which = job.texts[number], f"In prompt {number} (of {len(job.texts)}, from 0): " if len(job.texts) > 1 else ""
    try:
        ids = encode(model, text, bos=None if job.vector is not None else True, most=job.most_tokens)
    except InvalidRequest as error:
        raise InvalidRequest(error.code, which + error.message) from None
    if not ids or not text:
        raise InvalidRequest("empty_text", f"{which}There is no text to read. Send some.")
    if wrong := [place for place in job.sort_by if not 0 <= place < len(ids)]:
        raise InvalidRequest(
            "token_out_of_range",
            f"{which}The text has tokens 0 to {len(ids) - 1}, BOS among them, and not {wrong[0]}. Choose among those.",
        )
    return ids


def _place(model: LoadedModel, job: ReadActivations) -> Place:
    try:
        place = place_of(job.hook)
    except InvalidRequest:
        raise InvalidRequest(
            "unknown_hook",
            f"{job.hook!r:.80} is no hook that can be read. Use blocks.<layer>.hook_resid_post, hook_resid_pre, "
            "hook_resid_mid, hook_attn_out, hook_mlp_out or attn.hook_z.",
        ) from None
    if not place.block < model.n_layers:
        raise InvalidRequest(
            "layer_out_of_range", f"{model.id} has layers 0 to {model.n_layers - 1}, not {place.block}. Choose one."
        )
    return place
