"""An answer in the making: its choices, what it has used, and its receipts. Every form of answer is drawn from this."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from inference.calls import Call
from inference.types import Event, Finished, PromptRead, Receipt, Started, Token
from steering.api.openai.behavior_fields import FINISH_REASONS, outcome
from steering.api.openai.errors import ApiError
from steering.api.openai.planning import Plan
from steering.api.openai.talk import Talk
from steering.api.openai.written import Entry, Piece, Written
from steering.behaviors.monitoring import Seen

ENDS = FINISH_REASONS | {"constraint": "length"}  # as what cannot go on is unfinished; the receipt says why


@dataclass
class Choice:
    """`talk` tells words from calls, where tools may be called."""

    written: Written
    talk: Talk | None = None
    text: str = ""
    entries: list[Entry] = field(default_factory=list)
    offset: int = 0  # characters whose entries were given, for text_offset
    pieces: list[str] = field(default_factory=list)  # the text of each token, where something is watched for

    @property
    def reason(self) -> str | None:
        """In OpenAI's words; None while it is being written."""
        reason = self.written.reason
        if reason == "stop" and self.talk and self.talk.called:
            return "tool_calls"
        return ENDS.get(reason, reason) if reason else None

    @property
    def calls(self) -> list[Call]:
        return self.talk.calls if self.talk else []


class Answer:
    """`created` is in seconds since 1970. Choices are in order: those of the first prompt, then those of the next."""

    def __init__(self, id: str, plan: Plan):
        self.id, self.plan, self.ask = id, plan, plan.ask
        self.created = int(time.time())
        self.rows = [Choice(Written(plan.sampling.logprobs), Talk() if self.ask.tools else None) for _ in plan.requests]

    @property
    def choices(self) -> list[Choice]:
        """What is given of what was written: all, or the best of each prompt."""
        if not self.ask.best_of:
            return self.rows
        each = self.ask.best_of
        prompts = [self.rows[at : at + each] for at in range(0, len(self.rows), each)]
        return [choice for rows in prompts for choice in sorted(rows, key=_likelihood, reverse=True)[: self.ask.n]]

    def take(self, row: int, event: Event) -> Piece | None:
        """Raises ApiError(500) where a steered row ends without having been steered."""
        choice = self.rows[row]
        if isinstance(event, Started):
            choice.written.prompt_tokens = event.prompt_tokens
            return None
        if not isinstance(event, Token | Finished | PromptRead):
            return None
        if self.plan.watched and isinstance(event, Token):
            choice.pieces.append(event.text)
        piece = choice.written.take(event)
        if choice.talk:
            piece = choice.talk.take(piece, last=isinstance(event, Finished))
        if isinstance(event, Finished):
            self._check_steered(row, event)
        choice.text += piece.text
        choice.entries += piece.entries
        return piece

    def _check_steered(self, row: int, event: Finished) -> None:
        request, receipt = self.plan.requests[row], event.receipt
        unsteered = len(receipt.applied) < len(request.interventions)
        if request.ensemble:
            pairs = zip(request.ensemble.members, receipt.members, strict=True)
            unsteered |= any(len(said.applied) < len(asked.interventions) for asked, said in pairs)
        if unsteered:
            raise ApiError(500, "not_steered", "The model did not steer this answer as asked, so it is withheld.")

    @property
    def begun(self) -> bool:
        """Whether every row has been taken up, so that nothing of the request can be refused any more."""
        return all(choice.written.prompt_tokens for choice in self.rows)

    @property
    def ended(self) -> bool:
        return all(choice.reason for choice in self.rows)

    @property
    def prompt_tokens(self) -> int:
        """Those of each prompt once, however many answers it has."""
        return sum(choice.written.prompt_tokens for choice in self.rows[:: self.ask.rows])

    @property
    def completion_tokens(self) -> int:
        return sum(choice.written.tokens for choice in self.rows)

    @property
    def fingerprint(self) -> str:
        return f"fp_{self.plan.model.revision[:16] or 'unknown'}"

    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }

    def steering(self, rows: list[int]) -> dict[str, Any]:
        """The receipt and what behaviors did, as fields to add; nothing for an answer that was to be left alone."""
        choices = self.choices
        receipts = [{"index": row, **_in_short(receipt)} for row in rows if (receipt := choices[row].written.receipt)]
        if not (self.plan.steered or any(receipt["applied"] or len(receipt) > 3 for receipt in receipts)):
            return self._behaviors(rows)  # a behavior may have steered where nothing else was to
        made = {"model": self.plan.model.id, "revision": self.plan.model.revision}
        preset = {"preset": self.plan.preset} if self.plan.preset else {}
        steering = {**made, **preset, "strength": self.plan.strength, "receipts": receipts}
        return {"steering": steering, **self._behaviors(rows)}

    def _behaviors(self, rows: list[int]) -> dict[str, Any]:
        choices = self.choices
        ended = [(row, choices[row].written) for row in rows]
        return outcome(self.plan.watched, [(row, w.receipt, w.reason, w.prompt_tokens) for row, w in ended])

    def seen(self) -> list[Seen]:
        """What behaviors saw in the rows that have ended, to be counted."""
        names = {use.behavior.pk: use.watch.name for use in self.plan.watched}
        return [
            Seen(names, receipt.fired, choice.pieces, choice.written.prompt_tokens)
            for choice in self.rows
            if names and (receipt := choice.written.receipt)
        ]


def _likelihood(choice: Choice) -> float:
    """Log-probability per token, by which the best answers are chosen; nothing at all comes last."""
    written = choice.written
    return written.logprob / written.tokens if written.tokens else float("-inf")


def _in_short(receipt: Receipt) -> dict[str, Any]:
    """The seed and what was applied; beyond steering only what there was."""
    found: dict[str, Any] = {"seed": receipt.seed, "applied": [each.to_wire() for each in receipt.applied]}
    for name in ("constraint", "draft"):
        if (value := getattr(receipt, name)) is not None:
            found[name] = value.to_wire()
    for name in ("members", "beams"):
        if values := getattr(receipt, name):
            found[name] = [each.to_wire() for each in values]
    return found
