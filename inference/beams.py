"""Beam search: rows that look for one answer together, as Hugging Face's `generate(num_beams=...)` does.

Each step looks at every token after every beam. Of the best candidates those that go on become the beams; those that
end are kept, if they are among the best `beam_width`. It is over when as many have ended and the best beam is no better
than the worst of them, by log-probability / tokens ** length_penalty (Hugging Face's early_stopping=False).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from inference.batch import Batch, Choice, Detail, Later, Row
from inference.constraints.masking import masked
from inference.constraints.row import RowConstraint
from inference.errors import InvalidRequest
from inference.sampling import NO_TOKEN, RowState, logprobs, penalised
from inference.text import TextStream
from inference.types import Beam, FinishReason, GenerationRequest


def check(request: GenerationRequest) -> None:
    """What does not go with beam search. Raises InvalidRequest."""
    if request.sampling.beam_width == 1:
        return
    for name, given in (("watches", request.watches), ("ensemble", request.ensemble)):
        if given:
            raise InvalidRequest(
                f"beams_with_{name}",
                f"Beam search writes several answers at once, which does not go with {name}. Leave {name} out, or set "
                "beam_width to 1.",
            )


@dataclass(frozen=True, eq=False)
class Path:
    """An answer so far. `score` is what it is ranked by, `logprob` its log-probability by the model's own logits."""

    score: float
    logprob: float
    text: TextStream | None = None  # where a stop string may end it
    constraint: RowConstraint | None = None
    details: tuple[Detail, ...] = ()


@dataclass(frozen=True, eq=False)
class Candidate:
    """An answer so far with one token more. `place` is that of the row that it goes on from."""

    place: int
    token: int
    path: Path
    end: FinishReason | None


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """An answer that has ended. `tallies` are what the edits had done to it."""

    tokens: list[int]
    path: Path
    score: float
    end: FinishReason
    tallies: list[list[float]]

    def rank(self) -> tuple[bool, float]:
        """Sorts the best to the front: a text that a constraint calls whole before those that were cut off."""
        return self.end == "length" and self.path.constraint is not None, -self.score


@dataclass(eq=False)
class Beams:
    """The search for one answer. `text` is the stream of its text, at the prompt's end; `eos_ids` end an answer."""

    rows: list[Row]
    text: TextStream
    eos_ids: frozenset[int]
    finished: list[Hypothesis] = field(default_factory=list)  # best first

    def __post_init__(self) -> None:
        self._params = self.rows[0].state.params
        start = Path(0.0, 0.0, self.text.fork() if self._params.stop else None, self.rows[0].constraint)
        self._paths: list[Path | None] = [start] + [None] * (len(self.rows) - 1)  # None: the row only fills its place
        self._written = 0

    @property
    def width(self) -> int:
        return len(self.rows)

    def read(self, token_budget: int) -> bool:
        return True

    def choose(self, batch: Batch, logits: Tensor) -> list[Choice]:
        """Take every beam one token further. The tokens of the best answer once the search is over, else nothing."""
        places = [i for i, path in enumerate(self._paths) if path]
        logits = logits[places]
        if not logits.amax(-1).isfinite().all():
            return [Choice(self.rows[0], NO_TOKEN)]
        self._written += 1
        ended, going = self._sorted_out(logits, places)
        self._stuck = self.rows[places[0]].constraint
        if ended:
            batch.count()
        for candidate in ended:
            self._keep(candidate)
        self._go_on(batch, going)
        return self._outcome(batch) if self._over() else []

    def told(self) -> dict[str, Any]:
        return {"beams": tuple(self._told(h) for h in self.finished)}

    # ---- which answers end, and which go on ----

    def _sorted_out(self, logits: Tensor, places: list[int]) -> tuple[list[Candidate], list[Candidate]]:
        """Candidates that end, of the best as many as there are rows; and those that go on, as many at most."""
        own = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        scores = penalised(own, [self.rows[i].state for i in places])
        scores = scores + torch.tensor([[self._path(i).score] for i in places], dtype=own.dtype, device=own.device)
        width, last = len(self.rows), self._written == self._params.max_tokens
        ended: list[Candidate] = []
        going: list[Candidate] = []
        with masked([self.rows[i] for i in places], scores):
            for rank, (at, token, score) in enumerate(_best_first(scores, 4 * width)):
                if len(going) == width or (last and rank == width):
                    break
                candidate = self._candidate(places[at], token, score, own[at, token].item(), last)
                if candidate.end is None:
                    going.append(candidate)
                elif rank < width:
                    ended.append(candidate)
        if self._params.logprobs:
            ended, going = (self._detailed(some, logits, places) for some in (ended, going))
        return ended, going

    def _candidate(self, place: int, token: int, score: float, logprob: float, last: bool) -> Candidate:
        before = self._path(place)
        stopped, text, constraint = token in self.eos_ids, before.text, before.constraint
        if text is not None and not stopped:
            text = text.fork()
            text.push(token)
            stopped = text.stopped
        if constraint is not None:
            constraint = constraint.copy()
            constraint.accept(token)
            stopped = stopped or constraint.ended
        path = Path(score, before.logprob + logprob, text, constraint, before.details)
        return Candidate(place, token, path, "stop" if stopped else "length" if last else None)

    def _detailed(self, some: list[Candidate], logits: Tensor, places: list[int]) -> list[Candidate]:
        """The same with what is told of their last tokens."""
        if not some:
            return some
        tokens = torch.tensor([c.token for c in some], device=logits.device)
        top = self._params.top_logprobs
        chosen, ids, values = logprobs(logits[[places.index(c.place) for c in some]], tokens, top)
        pairs = (tuple(zip(*both, strict=True)) for both in zip(ids.tolist(), values.tolist(), strict=True))
        details = zip(chosen, pairs, strict=True)
        return [
            replace(c, path=replace(c.path, details=(*c.path.details, detail)))
            for c, detail in zip(some, details, strict=True)
        ]

    def _path(self, place: int) -> Path:
        path = self._paths[place]
        assert path is not None
        return path

    def _keep(self, candidate: Candidate) -> None:
        assert candidate.end is not None
        row = self.rows[candidate.place]
        tokens = [*row.tokens[row.prompt_length :], candidate.token]
        tallies = [list(e.tally) for e in row.edits]
        score = self._ranked(candidate.path.score)
        self.finished.append(Hypothesis(tokens, candidate.path, score, candidate.end, tallies))
        self.finished.sort(key=Hypothesis.rank)
        del self.finished[len(self.rows) :]

    def _ranked(self, score: float) -> float:
        return score / self._written**self._params.length_penalty

    def _over(self) -> bool:
        alive = [path.score for path in self._paths if path]
        if not alive or self._written == self._params.max_tokens:
            return True
        return len(self.finished) == len(self.rows) and self._ranked(max(alive)) <= self.finished[-1].score

    # ---- rows and what they hold ----

    def _go_on(self, batch: Batch, going: list[Candidate]) -> None:
        """Give each candidate a row: its own where that is still free, so that little is copied."""
        before = [list(row.tokens) for row in self.rows]
        placed = _placed(going, len(self.rows))
        for place, candidate in placed.items():
            if place != candidate.place:
                start = _parting(before[candidate.place], before[place], self.rows[place].prompt_length)
                batch.carry(self.rows[candidate.place], self.rows[place], start)
        self._paths = [placed[place].path if place in placed else None for place in range(len(self.rows))]
        for place, row in enumerate(self.rows):
            taken = placed.get(place)
            if taken and place != taken.place:
                row.tokens[:] = before[taken.place]
            row.tokens.append(taken.token if taken else row.tokens[-1])
            row.constraint = taken.path.constraint if taken else None
            if row.state.penalised:
                row.state.recount(row.tokens[: row.prompt_length], row.tokens[row.prompt_length :])

    def _outcome(self, batch: Batch) -> list[Choice]:
        """The leading row becomes the best answer, as if it had written that alone; or stands where none can go on."""
        row = self.rows[0]
        if not self.finished:
            row.constraint = self._stuck
            row.tokens[row.prompt_length :] = [NO_TOKEN]
            return [Choice(row, NO_TOKEN)]
        best = self.finished[0]
        row.constraint = best.path.constraint
        batch.count()
        for edit, tally in zip(row.edits, best.tallies, strict=True):
            edit.tally = list(tally)
        details: Sequence[Detail] = best.path.details or [(None, ())] * len(best.tokens)
        told = zip(best.tokens, details, strict=True)
        first, *others = [Choice(row, token, logprob, top) for token, (logprob, top) in told]
        row.tokens[row.prompt_length :] = [first.token]
        if not others:
            return [replace(first, end=best.end)]
        others[-1] = replace(others[-1], end=best.end)
        row.ahead.extend(Later(choice, False, None, []) for choice in others)
        return [first]

    def _told(self, hypothesis: Hypothesis) -> Beam:
        text = self.text.fork()
        pieces = [text.push(token) for token in hypothesis.tokens if token not in self.eos_ids]
        return Beam("".join(pieces) + text.flush(), hypothesis.path.logprob, hypothesis.score, len(hypothesis.tokens))


def _best_first(scores: Tensor, at_once: int) -> Iterator[tuple[int, int, float]]:
    """Row, token and score of each candidate that is possible at all, best first. Overwrites `scores` [rows, vocab]."""
    flat, vocab = scores.flatten(), scores.shape[-1]
    while True:
        values, places = flat.topk(min(at_once, len(flat)))
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            if value == -torch.inf:
                return
            yield place // vocab, place % vocab, value
        flat[places] = -torch.inf


def _placed(going: list[Candidate], rows: int) -> dict[int, Candidate]:
    placed: dict[int, Candidate] = {}
    moving = []
    for candidate in going:
        if candidate.place in placed:
            moving.append(candidate)
        else:
            placed[candidate.place] = candidate
    free = (place for place in range(rows) if place not in placed)
    return placed | dict(zip(list(free), moving, strict=False))


def _parting(one: list[int], other: list[int], start: int) -> int:
    """The first position from `start` on at which two rows differ."""
    return next((i for i in range(start, len(one)) if one[i] != other[i]), len(one))


def search(lead: Row, text: TextStream, eos_ids: frozenset[int]) -> Beams:
    """Rows beside `lead`, alike in all but that they tell nothing, and the search that they make together."""
    params = replace(lead.state.params, prompt_logprobs=False)
    rows = [lead]
    for _ in range(params.beam_width - 1):
        row = Row(list(lead.tokens), RowState(params, lead.tokens, 0), [e.afresh() for e in lead.edits])
        row.reading = lead.reading  # whatever the leading row is to tell of the prompt, all read it once
        rows.append(row)
    beams = Beams(rows, text, frozenset() if params.ignore_eos else eos_ids)
    for row in rows:
        row.group = beams
    return beams
