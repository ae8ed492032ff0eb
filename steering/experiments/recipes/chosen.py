"""Two answers to a question, at every dose: by how likely the whole answers are, or by the letter that is picked.

The slope of each question over the dose, their mean, and those that go the wrong way (Tan et al., 2407.12404).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from inference import judging, statistics
from inference.choices import Question, choice_items, propensity
from inference.types import Intervention, Message, ScoreItem
from steering.experiments.bench import Bench, Likelihood
from steering.experiments.recipes.cells import interval
from steering.experiments.recipes.subject import Subject, steer
from steering.experiments.recipes.together import all_of
from steering.experiments.settings import Choice, Evaluate

WHICH = "Which of these two would you say?"

Odds = Callable[[Bench, Evaluate, tuple[Intervention, ...]], Coroutine[Any, Any, list[float]]]


async def chosen(bench: Bench, settings: Evaluate, subject: Subject) -> dict[str, Any]:
    """`answers` and `letters`, as far as they are asked for."""
    kinds = [kind for kind in ODDS if kind in settings.beside]
    found = await all_of(_measured(ODDS[kind], bench, settings, subject) for kind in kinds)
    return dict(zip(kinds, found, strict=True))


async def _measured(odds: Odds, bench: Bench, settings: Evaluate, subject: Subject) -> dict[str, Any]:
    strengths = [dose * settings.strength for dose in settings.doses]
    edits = [steer(subject, settings.layer, strength, settings.operation) for strength in strengths]
    curves = await all_of(odds(bench, settings, edit) for edit in edits)
    per_item = [list(values) for values in zip(*curves, strict=True)]
    slopes = statistics.slopes(settings.doses, per_item)
    items = [
        {"prompt": c.prompt, "positive": c.positive, "negative": c.negative, "slope": round(float(s), 4),
         "propensity": [round(v, 4) for v in values]}
        for c, s, values in zip(settings.choices, slopes, per_item, strict=True)
    ]  # fmt: skip
    return {
        "doses": list(settings.doses),
        "strengths": [round(s, 4) for s in strengths],
        "curve": [interval(statistics.bootstrap_mean(values)) for values in curves],
        "steerability": interval(statistics.bootstrap_mean(slopes)),
        "against": interval(statistics.against_share(slopes)),
        "items": sorted(items, key=lambda item: float(item["slope"])),
    }


# ---- whole answers ----


async def _answers(bench: Bench, settings: Evaluate, edits: tuple[Intervention, ...]) -> list[float]:
    """Log-odds, nats per token, of the answer that shows the behaviour against the other."""
    items = [answer_item(choice, settings.writing.chat, edits) for choice in settings.choices]
    return [_per_token(found, 0) - _per_token(found, 1) for found in await bench.read(items, counted=True)]


def answer_item(choice: Choice, chat: bool, edits: tuple[Intervention, ...]) -> ScoreItem:
    """How likely both answers are. A pair without a prompt is read as the answer to nothing in particular."""
    asked = choice.prompt or judging.ANYTHING
    if chat:
        messages = (Message("user", asked),)
        return ScoreItem((choice.positive, choice.negative), messages=messages, interventions=edits)
    space = "" if asked[-1:].isspace() else " "
    answers = (space + choice.positive.lstrip(), space + choice.negative.lstrip())
    return ScoreItem(answers, prompt=asked, interventions=edits)


def _per_token(found: Likelihood, place: int) -> float:
    return found.logprobs[place] / max(1, found.tokens[place])


# ---- letters ----


async def _letters(bench: Bench, settings: Evaluate, edits: tuple[Intervention, ...]) -> list[float]:
    """Log-odds, nats, of the letter of the answer that shows the behaviour, averaged over both letter orders."""
    questions = [Question(c.prompt or WHICH, (c.positive, c.negative), 0) for c in settings.choices]
    items = [choice_items(q, chat=settings.writing.chat, interventions=edits) for q in questions]
    found = await bench.read([item for both in items for item in both], counted=True)
    return [_propensity(question, found[2 * i : 2 * i + 2]) for i, question in enumerate(questions)]


def _propensity(question: Question, orders: Sequence[Likelihood]) -> float:
    return propensity(question, [found.logprobs for found in orders])


ODDS: dict[str, Odds] = {"answers": _answers, "letters": _letters}
