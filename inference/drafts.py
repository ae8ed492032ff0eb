"""Guesses at what a row will write, and what becomes of them. Knows token ids and tensors; no text, no requests.

The row draws every token itself, from its own distribution and with its own next number, as if nothing had been
guessed; a guess stands where it is the token drawn. So the tokens are those that the row writes without a draft, and
what is guessed can only save passes. (For a guess that is fixed beforehand this is the rejection scheme of Leviathan et
al. 2211.17192, in other words; that a drafter may draw with the row's own numbers is from Daliri et al. 2408.07978.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from inference.companions import Companion, fit_width
from inference.constraints.masking import choose
from inference.constraints.row import RowConstraint
from inference.errors import InvalidRequest
from inference.sampling import NO_TOKEN, RowState, row_state
from inference.types import AppliedDraft, Draft, GenerationRequest, SamplingParams

if TYPE_CHECKING:
    from inference.batch import Batch, Row
    from inference.models.kernels import Kernels
    from inference.models.loader import LoadedModel

MAX_TOKENS, MAX_NGRAM = 16, 16
LINES = {"cuda": 256}  # tokens that one pass may read, of all rows together, so that guesses do not slow down others
LINES_CPU = 16
READ_TOKENS = 256  # of prompts that a companion reads per step


@dataclass(eq=False)
class RowDraft:
    """How one row guesses, and how often it was right. `model` is a companion; without one, guesses are looked up."""

    source: Draft
    model: LoadedModel | None = None
    proposed: int = 0
    accepted: int = 0
    passes: int = 0

    def __post_init__(self) -> None:
        self.seen = Seen(self.source.ngram)

    def applied(self) -> AppliedDraft:
        return AppliedDraft(self.source.model, self.proposed, self.accepted, self.passes)


def compile_draft(request: GenerationRequest, companion: Companion) -> RowDraft | None:
    """Raises InvalidRequest or NotFound where it cannot be done exactly."""
    draft = request.draft
    if draft is None:
        return None
    if not 1 <= draft.tokens <= MAX_TOKENS:
        raise InvalidRequest(
            "bad_draft", f"A draft guesses 1 to {MAX_TOKENS} tokens at a time, not {draft.tokens}. 4 is usual."
        )
    if not 1 <= draft.ngram <= MAX_NGRAM:
        raise InvalidRequest(
            "bad_draft", f"A draft looks for the last 1 to {MAX_NGRAM} tokens, not {draft.ngram}. 3 is usual."
        )
    _check_alone(request)
    return RowDraft(draft, companion(draft.model) if draft.model else None)


def _check_alone(request: GenerationRequest) -> None:
    others = {
        "beams": (request.sampling.beam_width > 1, "Beams weigh several answers at once", "beam_width to 1"),
        "ensemble": (request.ensemble is not None, "An ensemble asks several models for each token", "no ensemble"),
        "regenerate": (
            any(watch.action == "regenerate" for watch in request.watches),
            "A watch that has a span written again takes back tokens",
            "the watch's action to stop or steer",
        ),
    }
    for name, (asked, why, cure) in others.items():
        if asked:
            raise InvalidRequest(
                f"draft_with_{name}", f"{why}, which a draft does not follow. Leave the draft out, or set {cure}."
            )


class Seen:
    """Where each run of up to `ngram` tokens stood last, so that what came after it there can be guessed."""

    def __init__(self, ngram: int):
        self._ngram = ngram
        self._after: dict[tuple[int, ...], int] = {}
        self._known = 0

    def learn(self, tokens: Sequence[int]) -> None:
        """All but the last of `tokens`, which begin with those learnt before."""
        for after in range(self._known + 1, len(tokens)):
            for n in range(1, min(self._ngram, after) + 1):
                self._after[tuple(tokens[after - n : after])] = after
        self._known = max(self._known, len(tokens) - 1)

    def guess(self, tokens: Sequence[int], count: int) -> list[int]:
        """What followed the latest place where the longest end of `tokens` stood before; round again at the end."""
        self.learn(tokens)
        for n in range(min(self._ngram, len(tokens)), 0, -1):
            after = self._after.get(tuple(tokens[-n:]))
            if after is not None:
                period = len(tokens) - after
                return [tokens[after + i % period] for i in range(count)]
        return []


class Ahead(RowState):
    """A row's state as it would be after some guesses. The numbers that it draws are the row's, and may go back."""

    def __init__(self, state: RowState, guesses: Sequence[int]):
        vars(self).update(vars(state))
        self._state = state
        self.drawn: list[float] = []
        if self.penalised:
            self.ids, self.counts, self._slots = state.ids[:], state.counts[:], dict(state._slots)
        for token in guesses:
            self.emitted(token)

    def uniform(self) -> float:
        self.drawn.append(self._state.uniform())
        return self.drawn[-1]


def give_back(state: RowState, some: Sequence[Ahead]) -> None:
    """Let the row draw once more what these have drawn, which are the latest that did."""
    state.given_back.extendleft(reversed([number for one in some for number in one.drawn]))


@dataclass(frozen=True, eq=False)
class Line:
    """What a row would be after some guesses, as far as choosing its next token goes."""

    state: Ahead
    constraint: RowConstraint | None


def judge(
    guesses: dict[Row, list[int]], lines: dict[Row, list[int]], logits: Tensor, native: Kernels | None = None
) -> dict[Row, list[tuple[int, RowConstraint | None]]]:
    """What each row writes, the guesses that stand and one token more, and the constraint that each was chosen under.

    `lines` names those of `logits` [n, vocab] that follow a row's last token and each of its guesses. States are told.
    """
    ahead = {row: _lines(row, guesses[row]) for row in lines}
    every = [line for some in ahead.values() for line in some]
    wanted = logits[[line for own in lines.values() for line in own]]
    drawn = iter(choose(every, wanted, native).tolist())
    written = {}
    for row, some in ahead.items():
        tokens = [next(drawn) for _ in some]
        right = next((i for i, guess in enumerate(guesses[row]) if tokens[i] != guess), len(guesses[row]))
        give_back(row.state, [line.state for line in some[right + 1 :]])
        written[row] = [(token, line.constraint) for token, line in zip(tokens[: right + 1], some, strict=False)]
        for token, _ in written[row]:
            row.state.emitted(token)
    return written


def _lines(row: Row, guesses: Sequence[int]) -> list[Line]:
    """After no guess, after the first, and so on."""
    lines = [Line(Ahead(row.state, ()), row.constraint)]
    for i in range(len(guesses)):
        lines.append(_further(row, lines[-1], guesses[: i + 1]))
    return lines


def _further(row: Row, line: Line, guesses: Sequence[int]) -> Line:
    """After the last of `guesses` too, all but which `line` knows."""
    constraint = line.constraint
    if constraint is not None:
        constraint = constraint.copy()
        constraint.accept(guesses[-1])
    return Line(Ahead(row.state, guesses), constraint)


def _permitted(row: Row, guesses: list[int]) -> list[int]:
    """Those that its constraint allows, but for one that fulfils it to its end: behind that nothing is written."""
    if row.constraint is None:
        return guesses
    constraint = row.constraint.copy()
    for i, guess in enumerate(guesses):
        if not constraint.allows(guess):
            return guesses[:i]
        constraint.accept(guess)
        if constraint.ended or constraint.problem:
            return guesses[:i]
    return guesses


class Drafts:
    """Guesses for all rows of one batch. `open` makes the batch in which a companion's own rows stand."""

    def __init__(self, served: LoadedModel, open: Callable[[LoadedModel], Batch]):
        self._served, self._open = served, open
        self._lines = LINES.get(served.device.type, LINES_CPU)
        self._shadows: dict[LoadedModel, Shadow] = {}

    def guess(self, rows: Sequence[Row]) -> dict[Row, list[int]]:
        """For each of `rows` that has any."""
        asking = [(row, row.draft) for row in rows if row.draft]
        found: dict[Row, list[int]] = {}
        by_model: dict[LoadedModel, dict[Row, int]] = {}
        for row, draft in asking:
            draft.passes += 1
            share = max(0, self._lines - len(rows)) // len(asking)
            count = min(draft.source.tokens, _left(row) - 1, share)
            if draft.model is not None:
                by_model.setdefault(draft.model, {})[row] = count
            elif count > 0:
                found[row] = draft.seen.guess(row.tokens, count)
        for model, some in by_model.items():
            found |= self._shadow(model).guess(some)
        cut = {row: _permitted(row, self._until_end(row, guesses)) for row, guesses in found.items()}
        kept = {row: guesses for row, guesses in cut.items() if guesses}
        for row, draft in asking:
            draft.proposed += len(kept.get(row, ()))
        return kept

    def _until_end(self, row: Row, guesses: list[int]) -> list[int]:
        """Nothing is written behind the end of an answer."""
        if row.state.params.ignore_eos:
            return guesses
        end = next((i + 1 for i, guess in enumerate(guesses) if guess in self._served.eos_ids), len(guesses))
        return guesses[:end]

    def _shadow(self, model: LoadedModel) -> Shadow:
        if model not in self._shadows:
            self._shadows[model] = Shadow(self._open(model), self._served.vocab_size)
        return self._shadows[model]

    def forget(self, row: Row) -> None:
        if row.draft and row.draft.model in self._shadows:
            self._shadows[row.draft.model].forget(row)


def _left(row: Row) -> int:
    """Tokens that the row may still write."""
    return row.longest - len(row.tokens)


class Shadow:
    """A companion, which writes ahead of the rows that ask for it: all of them at once, a token each at a time.

    A row's like in its batch holds the tokens whose keys stand in the companion's cache, guesses among them.
    """

    def __init__(self, batch: Batch, width: int):
        self._batch, self._width = batch, width
        self._like: dict[Row, Row] = {}
        self._sure: dict[Row, int] = {}  # tokens of the like that the row is known to have too

    def guess(self, counts: dict[Row, int]) -> dict[Row, list[int]]:
        """As many tokens for each row as `counts` says; none while its prompt is still read."""
        self._read_prompts(list(counts))
        context = self._batch.model.context_length
        ready = self._batch.rows[: self._batch.decoding]
        going = [
            row
            for row, n in counts.items()
            if n > 0 and self._like.get(row) in ready and len(row.tokens) + n <= context
        ]
        guesses: dict[Row, list[int]] = {row: [] for row in going}
        lines = {row: [Line(Ahead(row.state, ()), row.constraint and row.constraint.copy())] for row in going}
        unread = {row: self._unread(row) for row in going}
        while going:
            logits = fit_width(self._read(unread), self._width)
            now = [lines[row][-1] for row in going]
            tokens = choose(now, logits, self._batch.model.native).tolist()
            told = dict(zip(going, tokens, strict=True))
            going = [row for row in going if told[row] != NO_TOKEN]
            for row in going:
                guesses[row].append(told[row])
            going = [row for row in going if len(guesses[row]) < counts[row]]
            for row in going:
                lines[row].append(_further(row, lines[row][-1], guesses[row]))
            unread = {row: [told[row]] for row in going}
        for row, some in lines.items():
            give_back(row.state, [line.state for line in some])
        return guesses

    def forget(self, row: Row) -> None:
        like = self._like.pop(row, None)
        if like is not None:
            del self._sure[row]
            self._batch.drop(like)

    def _read_prompts(self, rows: list[Row]) -> None:
        batch = self._batch
        if not batch.prefilling:
            fresh = [row for row in rows if row not in self._like and len(row.tokens) < batch.model.context_length]
            for row in fresh:
                state = row_state(SamplingParams(temperature=0.0), (), 0, batch.model.vocab_size)
                self._like[row] = type(row)(list(row.tokens), state)
                self._sure[row] = len(row.tokens)
            if fresh:
                batch.join([self._like[row] for row in fresh])
        if batch.prefilling:
            for choice in batch.prefill(READ_TOKENS):
                choice.row.tokens.pop()  # what it would write; only what it has read counts

    def _unread(self, row: Row) -> list[int]:
        """Forget guesses that were wrong. The row's tokens behind those that are left, one at least."""
        like, sure, last = self._like[row].tokens, self._sure[row], len(row.tokens) - 1
        while sure < min(len(like), last) and like[sure] == row.tokens[sure]:
            sure += 1
        self._sure[row] = sure = min(sure, last)
        del like[sure:]
        return row.tokens[sure:]

    def _read(self, unread: dict[Row, list[int]]) -> Tensor:
        """Logits [rows, vocab] behind the last of the tokens that each row goes on with."""
        batch = self._batch
        places = {like: place for place, like in enumerate(batch.rows[: batch.decoding])}
        owners: list[int] = []
        tokens: list[int] = []
        at: list[int] = []
        ends: list[int] = []
        for row, some in unread.items():
            like = self._like[row]
            owners += [places[like]] * len(some)
            at += range(len(like.tokens), len(like.tokens) + len(some))
            tokens += some
            like.tokens += some
            ends.append(len(tokens) - 1)
        return batch.read_lines(owners, tokens, at)[ends]
