"""Multiple choice without a judge: log-odds of the letter that shows a behaviour, in every order of the options.

A model prefers some letters whatever they stand for (2407.12404), so each option takes each letter once and the
log-odds are averaged: what a letter alone is worth then cancels where there are two options. Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inference.types import Intervention, Message, ScoreItem
from inference.wire import Wire

LETTERS = "ABCDEFGH"


@dataclass(frozen=True)
class Question(Wire):
    """`matching` is the place, from 0, of the option that shows the behaviour."""

    text: str
    options: tuple[str, ...]
    matching: int

    def __post_init__(self) -> None:
        if not 2 <= len(self.options) <= len(LETTERS) or not 0 <= self.matching < len(self.options):
            raise ValueError(f"A question needs 2 to {len(LETTERS)} options, one of which shows the behaviour.")


def choice_items(
    question: Question, *, chat: bool = True, interventions: tuple[Intervention, ...] = ()
) -> tuple[ScoreItem, ...]:
    """One item per order: in order k the option at place i has letter (i + k) mod n."""
    n = len(question.options)
    replies = tuple(f" {letter}" for letter in LETTERS[:n])
    items = []
    for order in range(n):
        shown = [question.options[(place - order) % n] for place in range(n)]
        options = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, shown, strict=False))
        text = f"{question.text}\n\n{options}\n\nReply with the letter alone."
        messages = (Message("user", text), Message("assistant", "Answer:"))
        given = {"messages": messages} if chat else {"prompt": f"{text}\n\nAnswer:"}
        items.append(ScoreItem(replies, interventions=interventions, **given))
    return tuple(items)


def propensity(question: Question, logprobs: Sequence[Sequence[float]]) -> float:
    """Log-odds (nats) of the matching option against the others, averaged over the orders.

    `logprobs` are those of the items of `choice_items`, in their order.
    """
    n = len(question.options)
    odds = []
    for order, values in enumerate(logprobs):
        at = (question.matching + order) % n
        others = np.delete(np.asarray(values, dtype=np.float64), at)
        odds.append(values[at] - float(np.logaddexp.reduce(others)))
    if len(odds) != n:
        raise ValueError(f"A question with {n} options has {n} orders, not {len(odds)}.")
    return float(np.mean(odds))
