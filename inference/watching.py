"""What becomes of a row that is watched: which tokens may be delivered, which are taken back, and what is told of both.

A token is read on the pass after the one that chose it. So a row that a watch may stop holds its newest token back
until that has been read, and one that may be written again holds back the longest span that a watch takes back: what
was delivered stays.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from inference.batch import Choice, Row
from inference.errors import InvalidRequest
from inference.probes import CompiledWatch
from inference.text import TextStream
from inference.types import Firing, GenerationRequest, Watch

TOLD = 1000  # firings that a receipt lists
MAX_SPAN, MAX_ATTEMPTS, MAX_NAME = 256, 16, 200

Values = tuple[float | None, ...]  # of one token, what each watch read


def check(request: GenerationRequest) -> None:
    """What the actions need of the request as a whole. Raises InvalidRequest."""
    for watch in request.watches:
        if not watch.name.strip() or len(watch.name) > MAX_NAME:
            raise InvalidRequest("bad_name", f"A watch needs a name of 1 to {MAX_NAME} characters. Give it one.")
        if watch.force and watch.action != "steer":
            raise InvalidRequest(
                "nothing_to_force",
                f"The watch {watch.name!r} is to {watch.action} whatever it reads, which only steering can do. Choose "
                "the action steer, or leave force out.",
            )
        if watch.action == "regenerate":
            _check_regenerate(request, watch)


def _check_regenerate(request: GenerationRequest, watch: Watch) -> None:
    if not 1 <= watch.span <= MAX_SPAN:
        raise InvalidRequest("bad_span", f"A span has 1 to {MAX_SPAN} tokens, not {watch.span}. 16 is usual.")
    if not 1 <= watch.attempts <= MAX_ATTEMPTS:
        raise InvalidRequest(
            "bad_attempts",
            f"A watch writes again 1 to {MAX_ATTEMPTS} times, not {watch.attempts}. To end at once, choose stop.",
        )
    if watch.positions.prompt:
        raise InvalidRequest(
            "prompt_not_written",
            f"The watch {watch.name!r} reads the prompt too, which nobody can write again. Set its "
            "positions.prompt to false.",
        )
    if request.sampling.temperature == 0:
        raise InvalidRequest(
            "nothing_else_to_write",
            "At temperature 0 the model writes the same words again. Raise the temperature, or let the watch stop or "
            "steer.",
        )


@dataclass(frozen=True)
class Verdict:
    """What the tokens just read led to. `keep`: tokens of the row, prompt included, that stand; the others go."""

    action: Literal["go_on", "stop", "regenerate"]
    keep: int = 0
    firings: tuple[Firing, ...] = ()


@dataclass(eq=False)
class Guard:
    """Of one watched row. `text` is the stream that the row's text is delivered by."""

    row: Row
    text: TextStream
    held: deque[Choice] = field(default_factory=deque)
    firings: list[Firing] = field(default_factory=list)
    fired_total: int = 0
    delivered: int = 0  # generated tokens

    def __post_init__(self) -> None:
        actions = [w.source for w in self.row.watches]
        spans = [w.span for w in actions if w.action == "regenerate"]
        self.lag = max([*spans, *(1 for w in actions if w.action == "stop")], default=0)
        self._read = 0  # the next position to be judged
        self._rewrites = dict.fromkeys((w.name for w in actions), 0)
        self._scores: deque[tuple[int, Values]] = deque()  # of tokens that were not told yet
        self._ahead: TextStream | None = None  # of all that was chosen: a stop string ends the row, delivered or not
        self._look_ahead()

    # ---- what was read ----

    def judge(self) -> Verdict:
        """Take what was read of the row since the last time. Raises InvalidRequest where numbers overflowed."""
        found: list[tuple[CompiledWatch, Firing]] = []
        for position, values in self._taken():
            self._read = position + 1
            if not all(value is None or math.isfinite(value) for value in values):
                raise InvalidRequest(
                    "numbers_overflowed",
                    "What a watch reads overflowed under this steering. Lower the strength and run again.",
                )
            self._scores.append((position, values))
            found += self._fired(position, values)
            if any(firing.action in ("stop", "regenerate") for _, firing in found):
                break
        verdict = self._decide(found)
        self.fired_total += len(verdict.firings)
        self.firings += verdict.firings[: TOLD - len(self.firings)]
        return verdict

    def _taken(self) -> list[tuple[int, Values]]:
        scores, self.row.scores = self.row.scores, []
        every = [(start + i, tuple(values)) for start, some in scores for i, values in enumerate(some)]
        return [(position, values) for position, values in every if position >= self._read]

    def _fired(self, position: int, values: Values) -> list[tuple[CompiledWatch, Firing]]:
        found = []
        for watch, score in zip(self.row.watches, values, strict=True):
            w = watch.source
            if score is None or w.threshold is None or not score > w.threshold:
                continue
            dose = watch.dose(score) if w.action == "steer" else 0.0
            token = self.row.tokens[position]
            found.append((watch, Firing(w.name, position, token, score, w.action, dose)))
        return found

    def _decide(self, found: list[tuple[CompiledWatch, Firing]]) -> Verdict:
        firings = tuple(firing for _, firing in found)
        acting = [(w.source, f) for w, f in found if f.action in ("stop", "regenerate")]
        if not acting:
            return Verdict("go_on", firings=firings)
        at = acting[-1][1].position
        again = [w for w, _ in acting if w.action == "regenerate" and self._rewrites[w.name] < w.attempts]
        if len(again) < len(acting):
            ended = tuple(_as_stop(f) if f.action == "regenerate" else f for f in firings)
            return Verdict("stop", at, ended)
        for watch in again:
            self._rewrites[watch.name] += 1
        return Verdict("regenerate", max(self.row.prompt_length, at + 1 - max(w.span for w in again)), firings)

    # ---- what may be delivered ----

    def chose(self, choice: Choice, *, silent: bool) -> None:
        """The row has written on; `silent` for a token that has no text."""
        self.held.append(choice)
        if self._ahead is not None and not silent:
            self._ahead.push(choice.token)

    @property
    def stopped(self) -> bool:
        """Whether a stop string is complete in what was chosen."""
        return self._ahead is not None and self._ahead.stopped

    def due(self, *, ended: bool) -> list[Choice]:
        """Tokens whose time has come, oldest first; all that are held where the row has ended."""
        count = len(self.held) - (0 if ended else self.lag)
        due = [self.held.popleft() for _ in range(max(count, 0))]
        self.delivered += len(due)
        return due

    def cut(self, keep: int) -> None:
        """Forget what was chosen and read behind the first `keep` tokens of the row, prompt included."""
        chosen = keep - self.row.prompt_length - self.delivered
        while len(self.held) > max(chosen, 0):
            self.held.pop()
        self._scores = deque((position, values) for position, values in self._scores if position < keep)
        self._read = keep
        self._look_ahead()

    def told(self) -> list[tuple[int, tuple[Values, ...]]]:
        """What was read of tokens that are delivered and was not told yet: runs of neighbours, each from its start."""
        runs: list[tuple[int, list[Values]]] = []
        while self._scores and self._scores[0][0] < self.row.prompt_length + self.delivered:
            position, values = self._scores.popleft()
            if runs and runs[-1][0] + len(runs[-1][1]) == position:
                runs[-1][1].append(values)
            else:
                runs.append((position, [values]))
        return [(start, tuple(values)) for start, values in runs]

    def _look_ahead(self) -> None:
        if self.lag and self.row.state.params.stop:
            self._ahead = self.text.fork()
            for choice in self.held:
                self._ahead.push(choice.token)


def _as_stop(firing: Firing) -> Firing:
    return Firing(firing.name, firing.position, firing.token_id, firing.score, "stop")
