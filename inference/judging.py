"""A local judge: questions about an answer whose reply is read off log-probabilities, not sampled. Loads no model.

The three ratings, and that they are joined by a harmonic mean, are those of AxBench (2501.17148); the wording is ours.
Whether a model is fit to judge is for a calibration to say (docs/lab.md); a small one often is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from inference.types import Message, ScoreItem

Rubric = Literal["concept", "instruct", "fluency"]

RATINGS = (0, 1, 2)
REPLIES = tuple(f" {rating}" for rating in RATINGS)
YES_NO = (" Yes", " No")
ANYTHING = "Write a few sentences."

RUBRICS: dict[Rubric, str] = {
    "concept": (
        "Rate how strongly a text is about a concept.\n"
        "0: the concept does not occur.\n"
        "1: the concept occurs, but only in passing or awkwardly.\n"
        "2: the concept is plainly and naturally part of the text.\n"
        "Do not rate anything else, such as whether the text is good or true.\n\n"
        "Concept: {concept}\n\nText: {answer}"
    ),
    "instruct": (
        "Rate how far a text does what an instruction asks.\n"
        "0: it has nothing to do with the instruction.\n"
        "1: it has to do with the instruction, but does not carry it out well.\n"
        "2: it does what the instruction asks.\n"
        "Do not rate anything else, such as style.\n\n"
        "Instruction: {instruction}\n\nText: {answer}"
    ),
    "fluency": (
        "Rate how fluent a text is.\n"
        "0: it is broken: it repeats itself, or it cannot be understood.\n"
        "1: it can be understood, but it has mistakes or sounds unnatural.\n"
        "2: it reads well. That it ends in the middle of a sentence does not matter.\n"
        "Do not rate anything else, such as what it is about.\n\n"
        "Text: {answer}"
    ),
}
_HOW = "\n\nReply with the rating alone: 0, 1 or 2."


def judge_item(kind: Rubric, concept: str, instruction: str, answer: str, *, chat: bool = True) -> ScoreItem:
    """The question for one rating. Hand the item's log-probabilities to `expected_rating`.

    Without `chat` it is plain text, for models that have no chat template.
    """
    question = RUBRICS[kind].format(concept=concept, instruction=instruction, answer=answer) + _HOW
    return _ask(question, "Rating:", REPLIES, chat)


def expected_rating(logprobs: Sequence[float]) -> float:
    """Mean rating, 0 to 2, of the judge's own distribution over the ratings."""
    return float(_shares(logprobs) @ np.asarray(RATINGS, dtype=np.float64))


def overall(concept: float, instruct: float, fluency: float) -> float:
    """AxBench's one number: the harmonic mean of the three ratings, and 0 if any is 0."""
    ratings = (concept, instruct, fluency)
    return 3.0 / sum(1.0 / rating for rating in ratings) if min(ratings) > 0 else 0.0


def yes_item(question: str, text: str, *, chat: bool = True) -> ScoreItem:
    """A question about a text that yes or no answers. Hand the item's log-probabilities to `p_yes`."""
    return _ask(f"Text: {text}\n\n{question} Reply with Yes or No alone.", "Answer:", YES_NO, chat)


def p_yes(logprobs: Sequence[float]) -> float:
    """Chance of "Yes" against "No", 0 to 1."""
    return float(_shares(logprobs)[0])


def naming_items(concept: str, answer: str, *, chat: bool = True) -> tuple[ScoreItem, ScoreItem]:
    """How likely the answer is when its concept was asked for, and when nothing in particular was.

    Hand what was found for both to `likelihood_gain`. This needs no model that follows a rubric: of the measures that
    know no list of words it is the one that a small model is fit for.
    """
    return instruction_items(f"{ANYTHING[:-1]} with {concept}.", answer, chat=chat)


def instruction_items(instruction: str, answer: str, *, chat: bool = True) -> tuple[ScoreItem, ScoreItem]:
    """How likely the answer is after its instruction, and when nothing in particular was asked."""
    if chat:
        asked, plain = (ScoreItem((answer,), messages=(Message("user", p),)) for p in (instruction, ANYTHING))
    else:
        asked, plain = (ScoreItem((f" {answer}",), prompt=p) for p in (instruction, ANYTHING))
    return asked, plain


def likelihood_gain(asked: Mapping[str, Any], plain: Mapping[str, Any]) -> float:
    """Nats per token that asking makes the answer likelier: above 0 where it is what was asked for.

    Takes two entries of the payload of `Score`.
    """
    return float((asked["logprobs"][0] - plain["logprobs"][0]) / plain["tokens"][0])


def _ask(question: str, opening: str, replies: tuple[str, ...], chat: bool) -> ScoreItem:
    if chat:
        return ScoreItem(replies, messages=(Message("user", question), Message("assistant", opening)))
    return ScoreItem(replies, prompt=f"{question}\n\n{opening}")


def _shares(logprobs: Sequence[float]) -> np.ndarray:
    weights = np.exp(np.asarray(logprobs, dtype=np.float64) - max(logprobs))
    return weights / weights.sum()
