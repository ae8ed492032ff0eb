"""A question in a sentence."""

from __future__ import annotations

from inference.types import Attribute
from steering.attribution.forms import METHODS, method_of

UNITS = {"logit_difference": "logits", "log_probability": "nats", "kl": "nats"}


def sentence_of(question: Attribute) -> str:
    """What is asked, as the head of the page says it."""
    targets, against = (_list(tokens) for tokens in (question.targets, question.against))
    what = {
        "logit_difference": f"the logit of {targets} over {against}",
        "log_probability": f"the log-probability of {targets}",
        "kl": "the whole answer, by its distance from the clean one,",
    }[question.metric]
    return f"Which places of the clean run bring {what} back when they are patched into the corrupted run?"


def method_words(question: Attribute) -> str:
    named = METHODS[method_of(question)][0]
    if question.steps:
        return f"{named}, {question.steps} steps"
    return "With QK fix and GradDrop" if question.qk_fix and question.grad_drop else named


def _list(tokens: tuple[str, ...]) -> str:
    return " or ".join(f"“{token.strip() or token}”" for token in tokens)
