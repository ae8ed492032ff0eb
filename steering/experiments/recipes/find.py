"""Find: the layer and dose at which a vector does most while the text still makes sense, proved on held-out prompts.

Layers are tried at once, each by halving its dose at the edge of coherence. The one point that is best on the tuning
prompts is then measured once on prompts that had no part in the choice, beside the base, beside the same wish as a
system prompt, and beside random directions of equal norm. Since that is one test, nothing is corrected for many.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from inference.statistics import paired_bootstrap
from steering.experiments.bench import Bench
from steering.experiments.recipes.cells import BASE, PROMPTING, Desk, against_null, better, front, null_band
from steering.experiments.recipes.judged import Answers
from steering.experiments.recipes.subject import Subject, steer
from steering.experiments.recipes.together import all_of, as_they_end
from steering.experiments.settings import Find
from steering.vectors.evaluation import SIGNIFICANT

TUNING_BASE = "tuning-base"
STEERED = "steered"


async def find(bench: Bench, settings: Find, subject: Subject) -> dict[str, Any]:
    bench.expect(settings.points, "looking for the edge of coherence")
    desk = Desk(bench, settings.behaviour, settings.writing, settings.floor)
    findings: dict[str, Any] = {"cells": [], "front": [], "best": None}
    base = await desk.write(TUNING_BASE, settings.prompts)
    findings["tuning_base"] = desk.cell(TUNING_BASE, base, base)
    searches = (_bisect(desk, settings, subject, layer, base, findings) for layer in settings.layers)
    async with aclosing(as_they_end(searches)) as ending:  # type: ignore[type-var]
        async for _ in ending:
            pass
    best = better(findings["cells"], settings.behaviour.sign)
    if best is None:
        return findings | {"verdict": "fails", "sentence": _nothing_coherent(settings)}
    bench.expect(settings.points, "measuring the best point on held-out prompts")
    return findings | await _prove(desk, settings, subject, best)


async def _bisect(
    desk: Desk, settings: Find, subject: Subject, layer: int, base: Answers, findings: dict[str, Any]
) -> None:
    """Towards the largest dose at which the text is still coherent. Every dose on the way is a candidate."""
    low, high = 0.0, settings.most
    for _ in range(settings.steps):
        strength = round((low + high) / 2, 4)
        group = f"L{layer}-{strength:g}"
        answers = await desk.write(group, settings.prompts, steer(subject, layer, strength, settings.operation))
        cell = desk.cell(group, answers, base, layer=layer, strength=strength, operation=settings.operation, vector=0)
        findings["cells"].append(cell)
        findings["front"] = front(findings["cells"], settings.behaviour.sign)
        best = better(findings["cells"], settings.behaviour.sign)
        findings["best"] = best["group"] if best else None
        await desk.bench.report(findings)
        low, high = (strength, high) if cell["coherent"] else (low, strength)


async def _prove(desk: Desk, settings: Find, subject: Subject, best: dict[str, Any]) -> dict[str, Any]:
    layer, strength, operation = best["layer"], best["strength"], settings.operation
    conditions = [
        desk.write(BASE, settings.held_out),
        desk.write(STEERED, settings.held_out, steer(subject, layer, strength, operation)),
    ]
    if settings.writing.wish:
        conditions.append(desk.write(PROMPTING, settings.held_out, system=settings.writing.wish))
    rest = null_band(desk, subject, layer, strength, operation, settings.held_out, settings.directions)
    measured, null = await all_of([all_of(conditions), rest])
    base, steered = measured[0], measured[1]
    sign = settings.behaviour.sign
    held_out = {
        "best": best["group"],
        "base": desk.cell(BASE, base, base),
        "steered": desk.cell(STEERED, steered, base, layer=layer, strength=strength, operation=operation, vector=0),
        "null": against_null(steered.mean, null, sign),
    }
    if settings.writing.wish:
        held_out["prompting"] = desk.cell(PROMPTING, measured[2], base)
        held_out["over_prompting"] = _over(measured[2], steered, sign)
    return held_out | _verdict(held_out, settings)


def _over(prompted: Answers, steered: Answers, sign: float) -> dict[str, float]:
    """How much more of the behaviour steering brings than the system prompt, in the wanted direction."""
    found = paired_bootstrap([sign * v for v in prompted.behaviour], [sign * v for v in steered.behaviour])
    return {"mean": round(found.estimate, 4), "low": round(found.low, 4), "high": round(found.high, 4)}


def _verdict(found: dict[str, Any], settings: Find) -> dict[str, str]:
    """works: beats all random directions, its interval excludes zero, and it stays coherent. weak: one of the first."""
    steered, null, sign = found["steered"], found["null"], settings.behaviour.sign
    change = steered["change"]
    sure = (change["low"] if sign > 0 else -change["high"]) > 0
    beats = null["p"] < SIGNIFICANT
    works = sure and beats and steered["coherent"]
    verdict = "works" if works else "weak" if (sure or beats) and steered["coherent"] else "fails"
    return {"verdict": verdict, "sentence": " ".join(_sentences(found, settings, sure, beats))}


def _sentences(found: dict[str, Any], settings: Find, sure: bool, beats: bool) -> list[str]:
    steered, null = found["steered"], found["null"]
    many = len(settings.held_out)
    said = [f"On {many} held-out prompts it beats {null['beaten']} of {null['count']} random directions."]
    said.append("The interval of the change excludes zero." if sure else "The interval of the change includes zero.")
    if not steered["coherent"]:
        said.append(f"But coherence falls to {steered['coherence']:.2f}, below the floor of {settings.floor:g}.")
    elif not beats:
        said.append("A random direction does as much: take it for chance.")
    return said


def _nothing_coherent(settings: Find) -> str:
    return (
        f"No dose kept the text above the coherence floor of {settings.floor:g}: every one that was tried broke it. "
        "Lower the floor or the largest dose, try other layers, or build the vector from more pairs."
    )
