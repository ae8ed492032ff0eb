"""How much of a behaviour is in each answer, and what the steering cost in sense."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from inference import judging
from steering.datasets.measures import count_words, distinct_2, repetition, score
from steering.experiments.bench import Bench, Prompt, Written
from steering.experiments.settings import Behaviour

LEAST_VARIETY = 0.7  # of the base's distinct word pairs; below it the text runs in circles


@dataclass(frozen=True)
class Answers:
    """What one condition wrote on some prompts, place by place. `surprise` is in nats per token, under the base."""

    texts: tuple[str, ...]
    behaviour: tuple[float, ...]
    surprise: tuple[float, ...]
    lengths: tuple[int, ...]
    stopped: tuple[bool, ...]
    applied: tuple[dict[str, Any], ...] = ()  # one per edit and answer: dose, projection before and after

    @property
    def mean(self) -> float:
        return fmean(self.behaviour)

    @property
    def variety(self) -> float:
        return fmean(map(distinct_2, self.texts))

    def scores(self) -> list[dict[str, Any]]:
        return [
            {"behaviour": round(b, 4), "surprise": round(s, 4), "variety": round(distinct_2(t), 4)}
            for t, b, s in zip(self.texts, self.behaviour, self.surprise, strict=True)
        ]

    def facts(self, base: Answers) -> dict[str, Any]:
        """The costs, as JSON. `coherence` is 1 for text like the base's and falls towards 0."""
        return {
            "n": len(self.texts),
            "coherence": round(coherence(self, base), 4),
            "surprise": round(fmean(self.surprise), 4),
            "perplexity": round(math.exp(min(fmean(self.surprise), 20)), 2),
            "variety": round(self.variety, 4),
            "repetition": round(fmean(map(repetition, self.texts)), 4),
            "words": round(fmean(map(count_words, self.texts)), 2),
            "tokens": round(fmean(self.lengths), 2),
            "stopped": sum(self.stopped),
        }


def coherence(answers: Answers, base: Answers) -> float:
    """e to the minus nats per token that the text surprises the unsteered model more than its own text does, times
    what is left of its variety. At most 1. Text that is empty or runs in circles is not coherent, however unsurprising.
    """
    more = max(0.0, fmean(answers.surprise) - fmean(base.surprise))
    left = min(1.0, answers.variety / base.variety) if base.variety else 1.0
    return math.exp(-more) * left * _said_something(answers)


def is_coherent(answers: Answers, base: Answers, floor: float) -> bool:
    circles = answers.variety < LEAST_VARIETY * base.variety
    return coherence(answers, base) >= floor and not circles


def _said_something(answers: Answers) -> float:
    return sum(len(text.split()) >= 3 for text in answers.texts) / len(answers.texts)


async def judged(bench: Bench, behaviour: Behaviour, prompts: Sequence[Prompt], written: Sequence[Written]) -> Answers:
    """Read each answer once under the unsteered model, without the system prompt that may have led to it."""
    items = [Prompt(p.text, p.chat).item(w.text) for p, w in zip(prompts, written, strict=True)]
    likely = await bench.read(items)
    return Answers(
        tuple(w.text for w in written),
        tuple(await behaviour_of(bench, behaviour, prompts, written)),
        tuple(reading.surprise for reading in likely),
        tuple(w.tokens for w in written),
        tuple(w.stopped for w in written),
        tuple(edit for w in written for edit in w.applied),
    )


async def behaviour_of(
    bench: Bench, behaviour: Behaviour, prompts: Sequence[Prompt], written: Sequence[Written]
) -> list[float]:
    texts = [w.text for w in written]
    if behaviour.kind == "naming":
        return await named(bench, behaviour.concept, prompts, texts)
    if behaviour.kind == "judge":
        return await ratings(bench, "concept", behaviour.concept, prompts, texts)
    return [score(text, behaviour.to_wire()) for text in texts]


async def named(bench: Bench, concept: str, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
    """Nats per token that naming the concept makes each answer likelier to the unsteered model; 0 for an empty one."""
    pairs = [
        judging.naming_items(concept, answer, chat=prompt.chat) for prompt, answer in zip(prompts, answers, strict=True)
    ]
    found = await bench.read([item for pair in pairs for item in pair])
    return [plain.surprise - asked.surprise for asked, plain in zip(found[::2], found[1::2], strict=True)]


async def ratings(
    bench: Bench, kind: judging.Rubric, concept: str, prompts: Sequence[Prompt], answers: Sequence[str]
) -> list[float]:
    """The local judge's expected rating, 0 to 2, over its own probabilities of the three ratings."""
    items = [
        judging.judge_item(kind, concept, prompt.text, answer, chat=prompt.chat)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    return [judging.expected_rating(found.logprobs) for found in await bench.read(items)]
