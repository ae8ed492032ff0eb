"""Evaluate: one working point, measured in every way there is, with what each of them is worth said beside it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from inference import judging, statistics
from steering.experiments.bench import Bench, Prompt
from steering.experiments.neutral import NEUTRAL
from steering.experiments.recipes.cells import BASE, PROMPTING, Desk, interval
from steering.experiments.recipes.chosen import chosen
from steering.experiments.recipes.judged import Answers, named, ratings
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
        [
            chosen(bench, settings, subject),
            _divergence(bench, settings, subject),
            _named(bench, settings, answers),
            _rated(bench, settings, answers),
        ]
    )
    for part in parts:
        findings |= part
    if edits := answers[STEERED].applied:
        findings["projection"] = _projection(edits)
    return findings | {"tests": _tests(findings, answers)}


# ---- what it costs ----


async def _divergence(bench: Bench, settings: Evaluate, subject: Subject) -> dict[str, Any]:
    """How far the steered model is from the base on texts that have nothing to do with the behaviour."""
    edits = steer(subject, settings.layer, settings.strength, settings.operation)
    if not edits:
        return {}
    texts = await bench.diverge(NEUTRAL, edits)
    kl = statistics.bootstrap_mean([text["kl"] for text in texts])
    return {"neutral": {"kl": interval(kl), "top1": round(fmean(t["top1"] for t in texts), 4), "texts": len(texts)}}


def _projection(edits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Along the very direction that was added: it says that the edit happened, never that it works."""
    means = {name: round(fmean(edit[name] for edit in edits), 4) for name in ("before", "after", "dose")}
    return means | {"circular": True}


# ---- what the unsteered model says ----


async def _named(bench: Bench, settings: Evaluate, answers: dict[str, Answers]) -> dict[str, Any]:
    """Nats per token that naming the concept makes the answers likelier, by condition."""
    if "naming" not in settings.beside:
        return {}
    prompts = [Prompt(text, settings.writing.chat) for text in settings.prompts]
    found = await all_of(named(bench, settings.concept, prompts, written.texts) for written in answers.values())
    gains = dict(zip(answers, found, strict=True))
    means = {name: interval(statistics.bootstrap_mean(values)) for name, values in gains.items()}
    change = statistics.paired_bootstrap(gains[BASE], gains[STEERED])
    moved = [b - a for a, b in zip(gains[BASE], gains[STEERED], strict=True)]
    p = sign_flip_p(moved)
    return {"naming": {"concept": settings.concept, "gains": means, "change": interval(change), "p": round(p, 4)}}


async def _rated(bench: Bench, settings: Evaluate, answers: dict[str, Answers]) -> dict[str, Any]:
    """The local judge's expected ratings (AxBench's three rubrics), 0 to 2, and their harmonic mean."""
    if "judge" not in settings.beside:
        return {}
    prompts = [Prompt(text, settings.writing.chat) for text in settings.prompts]
    found: dict[str, Any] = {}
    overall: dict[str, list[float]] = {}
    for name, written in answers.items():
        by_rubric = await all_of(ratings(bench, rubric, settings.concept, prompts, written.texts) for rubric in RUBRICS)
        overall[name] = [judging.overall(*three) for three in zip(*by_rubric, strict=True)]
        found[name] = {rubric: round(fmean(v), 4) for rubric, v in zip(RUBRICS, by_rubric, strict=True)}
        found[name]["overall"] = interval(statistics.bootstrap_mean(overall[name]))
    change = statistics.paired_bootstrap(overall[BASE], overall[STEERED])
    return {"judge": {"concept": settings.concept, "ratings": found, "change": interval(change)}}


# ---- many tests ----


def _tests(findings: dict[str, Any], answers: dict[str, Answers]) -> list[dict[str, Any]]:
    """Every comparison of steered with base, by a sign-flip test, corrected together (Benjamini and Hochberg)."""
    base, steered = answers[BASE], answers[STEERED]
    pairs = [("behaviour", base.behaviour, steered.behaviour), ("surprise", base.surprise, steered.surprise)]
    pairs.append(("words", base.lengths, steered.lengths))
    tests = [(name, sign_flip_p([b - a for a, b in zip(x, y, strict=True)])) for name, x, y in pairs]
    if "naming" in findings:
        tests.append(("naming", findings["naming"]["p"]))
    for name in ("answers", "letters"):
        if name in findings:
            tests.append((f"slope of {name}", sign_flip_p([item["slope"] for item in findings[name]["items"]])))
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
