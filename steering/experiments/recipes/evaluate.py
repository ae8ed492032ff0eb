"""Evaluate: one working point, measured in every way there is, with what each of them is worth said beside it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from inference import judging, statistics
from inference.choices import Question, choice_items, propensity
from steering.experiments.bench import Bench, Prompt
from steering.experiments.neutral import NEUTRAL
from steering.experiments.recipes.cells import BASE, PROMPTING, Desk
from steering.experiments.recipes.judged import Answers, ratings
from steering.experiments.recipes.subject import Subject, steer
from steering.experiments.recipes.together import all_of
from steering.experiments.settings import Evaluate

STEERED = "steered"
RUBRICS: tuple[judging.Rubric, ...] = ("concept", "instruct", "fluency")


async def evaluate(bench: Bench, settings: Evaluate, subject: Subject) -> dict[str, Any]:
    bench.expect(settings.points, "writing base, steered and prompted")
    desk = Desk(bench, settings.behaviour, settings.writing, settings.floor)
    here = steer(subject, settings.layer, settings.strength, settings.operation)
    conditions = [desk.write(BASE, settings.prompts), desk.write(STEERED, settings.prompts, here)]
    if settings.writing.wish:
        conditions.append(desk.write(PROMPTING, settings.prompts, system=settings.writing.wish))
    names = (BASE, STEERED, PROMPTING)[: len(conditions)]
    answers = dict(zip(names, await all_of(conditions), strict=True))
    findings: dict[str, Any] = {name: desk.cell(name, found, answers[BASE]) for name, found in answers.items()}
    findings[STEERED] |= {
        "vector": 0, "layer": settings.layer, "strength": settings.strength, "operation": settings.operation
    }  # fmt: skip
    await bench.report(findings)
    parts = await all_of(
        [_chosen(bench, settings, subject), _divergence(bench, settings, subject), _rated(bench, settings, answers)]
    )
    for part in parts:
        findings |= part
    if edits := answers[STEERED].applied:
        findings["projection"] = _projection(edits)
    return findings | {"tests": _tests(findings, answers, settings)}


# ---- multiple choice ----


async def _chosen(bench: Bench, settings: Evaluate, subject: Subject) -> dict[str, Any]:
    """Propensity of every question at every dose, both letter orders; the slope of each, and those that go the wrong
    way (Tan et al., 2407.12404)."""
    if not settings.choices:
        return {}
    questions = [Question(c.prompt, (c.positive, c.negative), 0) for c in settings.choices]
    strengths = [dose * settings.strength for dose in settings.doses]
    curves = await all_of(_propensities(bench, settings, subject, questions, strength) for strength in strengths)
    per_item = [list(values) for values in zip(*curves, strict=True)]
    slopes = statistics.slopes(settings.doses, per_item)
    mean = statistics.bootstrap_mean(slopes)
    against = statistics.against_share(slopes)
    items = [
        {"prompt": c.prompt, "positive": c.positive, "negative": c.negative, "slope": round(float(s), 4),
         "propensity": [round(v, 4) for v in values]}
        for c, s, values in zip(settings.choices, slopes, per_item, strict=True)
    ]  # fmt: skip
    curve = [statistics.bootstrap_mean(values) for values in curves]
    return {
        "choices": {
            "doses": list(settings.doses),
            "strengths": [round(s, 4) for s in strengths],
            "curve": [_interval(point) for point in curve],
            "steerability": _interval(mean),
            "against": _interval(against),
            "items": sorted(items, key=lambda item: float(item["slope"])),
        }
    }


async def _propensities(
    bench: Bench, settings: Evaluate, subject: Subject, questions: Sequence[Question], strength: float
) -> list[float]:
    edits = steer(subject, settings.layer, strength, settings.operation)
    items = [choice_items(q, chat=settings.writing.chat, interventions=edits) for q in questions]
    found = await bench.read([item for both in items for item in both], counted=True)
    return [
        propensity(question, [found[2 * i].logprobs, found[2 * i + 1].logprobs]) for i, question in enumerate(questions)
    ]


# ---- what it costs ----


async def _divergence(bench: Bench, settings: Evaluate, subject: Subject) -> dict[str, Any]:
    """How far the steered model is from the base on texts that have nothing to do with the behaviour."""
    edits = steer(subject, settings.layer, settings.strength, settings.operation)
    if not edits:
        return {}
    texts = await bench.diverge(NEUTRAL, edits)
    kl = statistics.bootstrap_mean([text["kl"] for text in texts])
    return {"neutral": {"kl": _interval(kl), "top1": round(fmean(t["top1"] for t in texts), 4), "texts": len(texts)}}


def _projection(edits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Along the very direction that was added: it says that the edit happened, never that it works."""
    means = {name: round(fmean(edit[name] for edit in edits), 4) for name in ("before", "after", "dose")}
    return means | {"circular": True}


# ---- the judge ----


async def _rated(bench: Bench, settings: Evaluate, answers: dict[str, Answers]) -> dict[str, Any]:
    """The local judge's expected ratings (AxBench's three rubrics), 0 to 2, and their harmonic mean."""
    if not settings.concept:
        return {}
    prompts = [Prompt(text, settings.writing.chat) for text in settings.prompts]
    found: dict[str, Any] = {}
    overall: dict[str, list[float]] = {}
    for name, written in answers.items():
        by_rubric = await all_of(ratings(bench, rubric, settings.concept, prompts, written.texts) for rubric in RUBRICS)
        overall[name] = [judging.overall(*three) for three in zip(*by_rubric, strict=True)]
        found[name] = {rubric: round(fmean(v), 4) for rubric, v in zip(RUBRICS, by_rubric, strict=True)}
        found[name]["overall"] = _interval(statistics.bootstrap_mean(overall[name]))
    change = statistics.paired_bootstrap(overall[BASE], overall[STEERED])
    return {"judge": {"concept": settings.concept, "ratings": found, "change": _interval(change)}}


# ---- many tests ----


def _tests(findings: dict[str, Any], answers: dict[str, Answers], settings: Evaluate) -> list[dict[str, Any]]:
    """Every comparison of steered with base, by a sign-flip test, corrected together (Benjamini and Hochberg)."""
    base, steered = answers[BASE], answers[STEERED]
    pairs = [("behaviour", base.behaviour, steered.behaviour), ("surprise", base.surprise, steered.surprise)]
    pairs.append(("words", base.lengths, steered.lengths))
    tests = [(name, sign_flip_p([b - a for a, b in zip(x, y, strict=True)])) for name, x, y in pairs]
    if "choices" in findings:
        tests.append(("propensity slope", sign_flip_p([item["slope"] for item in findings["choices"]["items"]])))
    adjusted = statistics.adjusted_p_values([p for _, p in tests])
    return [
        {"of": name, "p": round(p, 4), "adjusted": round(q, 4), "holds": q <= 0.05}
        for (name, p), q in zip(tests, adjusted, strict=True)
    ]


def sign_flip_p(differences: Sequence[float], samples: int = 10_000, seed: int = 0) -> float:
    """Two-sided: how often random signs of the differences give as large a mean. 1 where nothing differs."""
    values = np.asarray(differences, dtype=np.float64)
    flips = np.random.default_rng(seed).choice((-1.0, 1.0), (samples, len(values)))
    means = np.abs((flips * values).mean(1))
    return float((1 + (means >= abs(values.mean()) - 1e-12).sum()) / (1 + samples))


def _interval(found: Any) -> dict[str, float]:
    return {"mean": round(found.estimate, 4), "low": round(found.low, 4), "high": round(found.high, 4)}
