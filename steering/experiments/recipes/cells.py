"""Writing and judging under one condition, and putting conditions side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inference.statistics import bootstrap_mean, null_p_value, paired_bootstrap
from inference.types import Intervention, Operation, SamplingParams
from steering.experiments.bench import Ask, Bench, Prompt
from steering.experiments.recipes.judged import Answers, is_coherent, judged
from steering.experiments.recipes.subject import Subject, random_steer
from steering.experiments.recipes.together import all_of
from steering.experiments.settings import Behaviour, Writing

BASE = "base"
PROMPTING = "prompting"


@dataclass(frozen=True)
class Desk:
    """A bench with what all conditions of an experiment have in common."""

    bench: Bench
    behaviour: Behaviour
    writing: Writing
    floor: float

    async def write(
        self, group: str, prompts: Sequence[str], interventions: tuple[Intervention, ...] = (), system: str = ""
    ) -> Answers:
        """One answer per prompt, judged. All are asked for at once and share batches with all others."""
        sampling = SamplingParams(
            max_tokens=self.writing.max_tokens,
            temperature=self.writing.temperature,
            repetition_penalty=self.writing.repetition_penalty,
            seed=self.writing.seed,
            fit=True,
        )
        full = [Prompt(text, self.writing.chat, system) for text in prompts]
        asks = [Ask(group, place, prompt, sampling, interventions) for place, prompt in enumerate(full)]
        answers = await judged(self.bench, self.behaviour, full, await self.bench.complete(asks))
        await self.bench.keep(group, answers.scores())
        return answers

    def cell(self, group: str, answers: Answers, base: Answers, **about: Any) -> dict[str, Any]:
        """A condition beside the base, as JSON: means with 95 % intervals over prompts, and who went the wrong way."""
        sign = self.behaviour.sign
        change = paired_bootstrap(base.behaviour, answers.behaviour)
        mean = bootstrap_mean(answers.behaviour)
        wrong = [
            place
            for place, (before, after) in enumerate(zip(base.behaviour, answers.behaviour, strict=True))
            if sign * (after - before) < 0
        ]
        return about | answers.facts(base) | {
            "group": group,
            "behaviour": interval(mean),
            "change": interval(change),
            "wrong": wrong,
            "coherent": is_coherent(answers, base, self.floor),
        }  # fmt: skip


def interval(found: Any) -> dict[str, float]:
    return {"mean": round(found.estimate, 4), "low": round(found.low, 4), "high": round(found.high, 4)}


def cell_key(vector: int, operation: str, layer: int, strength: float) -> str:
    return f"v{vector}-{operation}-L{layer}-{strength:g}"


def better(cells: Sequence[dict[str, Any]], sign: float) -> dict[str, Any] | None:
    """The coherent cell with most of the behaviour; of equals the one that costs less. None where none is coherent."""
    coherent = [cell for cell in cells if cell["coherent"] and cell.get("strength") != 0]
    return max(coherent, key=lambda cell: (sign * cell["behaviour"]["mean"], cell["coherence"]), default=None)


def front(cells: Sequence[dict[str, Any]], sign: float) -> list[str]:
    """The groups that no other cell beats in both behaviour and coherence, the most coherent first."""
    best, found = float("-inf"), []
    for cell in sorted(cells, key=lambda c: (-c["coherence"], -sign * c["behaviour"]["mean"])):
        if (value := sign * cell["behaviour"]["mean"]) > best:
            best = value
            found.append(cell["group"])
    return found


async def null_band(
    desk: Desk, subject: Subject, layer: int, strength: float, operation: Operation, prompts: Sequence[str], count: int
) -> list[Answers]:
    """The same dose of `count` directions that mean nothing."""
    return await all_of(
        desk.write(f"random-{n}", prompts, random_steer(subject, layer, strength, desk.writing.seed + n, operation))
        for n in range(count)
    )


def against_null(value: float, null: Sequence[Answers], sign: float) -> dict[str, Any]:
    """How a mean stands to those of random directions. `p` counts those that do as well, itself included."""
    means = sorted(answers.mean for answers in null)
    low, high = _quantile(means, 0.025), _quantile(means, 0.975)
    return {
        "count": len(means),
        "mean": round(sum(means) / len(means), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "beaten": sum(sign * value > sign * other for other in means),
        "p": round(null_p_value(sign * value, [sign * other for other in means]), 4),
        "means": [round(value, 4) for value in means],
    }


def _quantile(ordered: Sequence[float], share: float) -> float:
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])
