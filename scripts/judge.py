"""Which measures of a behaviour are to be trusted on a model: `python -m scripts.judge [rubric or slug ...]`.

A rubric (concept, instruct, fluency) is asked of the served model for answers that a person labelled
(judge_calibration.json); it says how often each measure tells a good one from a bad one. A starter's slug builds its
vector from every other pair and says how two measures on the remaining pairs move with its strength: the letter that
the model picks, and how likely it finds the two answers themselves. `docs/lab.md` records what came out for the
default model.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from inference.choices import Question, choice_items, propensity
from inference.client import Inference, connect
from inference.judging import (
    ANYTHING,
    Rubric,
    expected_rating,
    judge_item,
    likelihood_gain,
    naming_items,
    p_yes,
    yes_item,
)
from inference.statistics import against_share, auroc_interval, slopes, steerability
from inference.types import CreateVector, Failed, Intervention, Message, Pair, Result, Score, ScoreItem
from steering.datasets.measures import distinct_2, repetition, score

ROOT = Path(__file__).parent.parent
STARTERS = ROOT / "steering/datasets/starters"
RECIPES = ROOT / "steering/vectors/starters"
CALIBRATION = Path(__file__).with_name("judge_calibration.json")
LEXICONS = {"calm": "calm", "tabby": "tabby-cats", "Toronto": "toronto", "admitting": "honesty"}
DOSES = (-1.0, 0.0, 1.0)  # of the starter's own strength


async def result(inference: Inference, job: Score | CreateVector) -> dict[str, Any]:
    async for event in inference.run(job):
        if isinstance(event, Failed):
            raise RuntimeError(event.message)
        if isinstance(event, Result):
            return event.payload
    raise RuntimeError("the job ended without a result")


async def scored(inference: Inference, items: Sequence[ScoreItem]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await result(inference, Score("score", tuple(items))))["items"]
    return found


def likelihood_item(prompt: str, *texts: str, steer: tuple[Intervention, ...] = (), chat: bool = True) -> ScoreItem:
    if chat:
        return ScoreItem(texts, messages=(Message("user", prompt),), interventions=steer)
    return ScoreItem(tuple(f" {text}" for text in texts), prompt=prompt, interventions=steer)


def per_token(found: dict[str, Any]) -> float:
    return float(found["logprobs"][0] / found["tokens"][0])


# ---- against labels ----


async def calibrate(inference: Inference, rubric: Rubric) -> None:
    cases: list[dict[str, Any]] = json.loads(CALIBRATION.read_text("utf-8"))
    items = [judge_item(rubric, c["concept"], c["instruction"], c["answer"]) for c in cases]
    ratings = [expected_rating(found["logprobs"]) for found in await scored(inference, items)]
    labels = np.array([case["ratings"][rubric] for case in cases])
    print_row(rubric, "judge's expected rating", np.array(ratings), labels)
    for name, values in (await RIVALS[rubric](inference, cases)).items():
        print_row(rubric, name, np.asarray(values), labels)


async def of_concept(inference: Inference, cases: list[dict[str, Any]]) -> dict[str, Any]:
    asked = await scored(inference, [yes_item(f"Is there {c['concept']} in the text?", c["answer"]) for c in cases])
    pairs = [naming_items(c["concept"], c["answer"]) for c in cases]
    named = await scored(inference, [item for pair in pairs for item in pair])
    return {
        "words of the concept": [_words(case) for case in cases],
        "P(Yes)": [p_yes(found["logprobs"]) for found in asked],
        "likelihood gained by naming the concept": [
            likelihood_gain(*named[i : i + 2]) for i in range(0, len(named), 2)
        ],
    }


async def of_instruct(inference: Inference, cases: list[dict[str, Any]]) -> dict[str, Any]:
    plain, asked = await _likelihoods(inference, cases)
    return {"likelihood gained by the instruction": asked - plain}


async def of_fluency(inference: Inference, cases: list[dict[str, Any]]) -> dict[str, Any]:
    plain, asked = await _likelihoods(inference, cases)
    return {
        "likelihood after the instruction": asked,
        "likelihood after any instruction": plain,
        "word pairs not repeated": [-repetition(case["answer"], 2) for case in cases],
        "both: e^likelihood times distinct pairs": [
            np.exp(nats) * distinct_2(case["answer"]) for nats, case in zip(asked, cases, strict=True)
        ],
    }


async def _likelihoods(inference: Inference, cases: list[dict[str, Any]]) -> list[np.ndarray]:
    """Mean nats per token of every answer, after no instruction in particular and after its own."""
    found = []
    for prompts in ([ANYTHING] * len(cases), [case["instruction"] for case in cases]):
        items = [likelihood_item(p, c["answer"]) for p, c in zip(prompts, cases, strict=True)]
        found.append(np.array([per_token(f) for f in await scored(inference, items)]))
    return found


RIVALS = {"concept": of_concept, "instruct": of_instruct, "fluency": of_fluency}


def _words(case: dict[str, Any]) -> float:
    slug = next(slug for word, slug in LEXICONS.items() if case["concept"].startswith(("the city of " + word, word)))
    measure = next(s["measure"] for s in starters() if s["slug"] == slug)
    return score(case["answer"], measure)


def print_row(rubric: str, name: str, values: np.ndarray, labels: np.ndarray) -> None:
    groups = [values[labels == label] for label in (0, 1, 2)]
    area = auroc_interval(groups[2], groups[0])
    means = " / ".join(f"{group.mean():.2f}" if len(group) else "-" for group in groups)
    middle = f"{auroc_interval(groups[2], groups[1]).estimate:.2f}" if len(groups[1]) > 1 else "-"
    print(
        f"{rubric:9} {name:40} AUROC 2 against 0: {area.estimate:.2f} [{area.low:.2f}, {area.high:.2f}]"
        f"  2 against 1: {middle}  means 0 / 1 / 2: {means}",
        flush=True,
    )


# ---- against strength ----


def starters() -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], json.loads((STARTERS / "starters.json").read_text("utf-8")))


async def follow(inference: Inference, slug: str) -> None:
    known = json.loads((RECIPES / f"{slug}.evaluation.json").read_text("utf-8"))
    recipe, layer, strength = known["recipe"], known["layer"], known["strength"]
    lines = (STARTERS / f"{slug}.jsonl").read_text("utf-8").splitlines()
    pairs = [Pair(**json.loads(line)) for line in lines]
    built = await result(inference, CreateVector("build", tuple(pairs[0::2]), **recipe))
    steers = [
        (Intervention(vector_id=built["vector"]["id"], layers=(layer,), strength=dose * strength, unit="relative"),)
        for dose in DOSES
    ]
    held = [pair for pair in pairs[1::2] if pair.prompt]
    print(f"{slug}: layer {layer}, doses in units of {strength:g}x, {len(held)} pairs that did not build the vector")
    print_slopes("letters, both orders", await letters(inference, held, steers))
    print_slopes("answers, per token", await answers(inference, held, steers, recipe["chat"]))


async def letters(inference: Inference, pairs: Sequence[Pair], steers: Sequence[tuple[Intervention, ...]]) -> Any:
    questions = [Question(pair.prompt, (pair.positive, pair.negative), 0) for pair in pairs]
    items = [item for q in questions for steer in steers for item in choice_items(q, interventions=steer)]
    found = [f["logprobs"] for f in await scored(inference, items)]
    orders = [found[i : i + 2] for i in range(0, len(found), 2)]
    return [[propensity(q, orders[n * len(steers) + k]) for k in range(len(steers))] for n, q in enumerate(questions)]


async def answers(
    inference: Inference, pairs: Sequence[Pair], steers: Sequence[tuple[Intervention, ...]], chat: bool
) -> Any:
    items = [likelihood_item(p.prompt, p.positive, p.negative, steer=s, chat=chat) for p in pairs for s in steers]
    gaps = [
        f["logprobs"][0] / f["tokens"][0] - f["logprobs"][1] / f["tokens"][1] for f in await scored(inference, items)
    ]
    return np.reshape(gaps, (len(pairs), len(steers)))


def print_slopes(name: str, scores: Any) -> None:
    table = np.asarray(scores)
    slope, against = steerability(DOSES, table), against_share(slopes(DOSES, table))
    curve = " ".join(f"{value:+.2f}" for value in table.mean(0))
    print(
        f"  {name:22} slope {slope.estimate:+.3f} [{slope.low:+.3f}, {slope.high:+.3f}]"
        f"  wrong way {against.estimate:.0%} [{against.low:.0%}, {against.high:.0%}]  mean by dose {curve}",
        flush=True,
    )


async def main(what: list[str]) -> None:
    data_dir = Path(os.environ.get("STEERBOARD_DATA", ROOT / "data"))
    inference = connect(os.environ.get("INFERENCE_URL", "inprocess://default"), data_dir=data_dir, dtype="float32")
    while (info := await inference.describe()).state == "loading":
        await asyncio.sleep(0.2)
    if info.state == "failed":
        sys.exit(info.problem)
    for name in what or [*RIVALS, *(s["slug"] for s in starters())]:
        await (calibrate(inference, cast(Rubric, name)) if name in RIVALS else follow(inference, name))
    await inference.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
