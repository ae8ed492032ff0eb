"""Sweep: a grid of vectors, operations, layers and strengths on the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from itertools import product
from typing import Any

from steering.experiments.bench import Bench
from steering.experiments.recipes.cells import BASE, PROMPTING, Desk, against_null, better, cell_key, front, null_band
from steering.experiments.recipes.judged import Answers
from steering.experiments.recipes.subject import Subject, steer
from steering.experiments.recipes.together import as_they_end
from steering.experiments.settings import Sweep


async def sweep(bench: Bench, settings: Sweep, subjects: Sequence[Subject]) -> dict[str, Any]:
    """Every cell as soon as its texts are judged; in the end the best one that stays coherent."""
    bench.expect(settings.points)
    desk = Desk(bench, settings.behaviour, settings.writing, settings.floor)
    findings: dict[str, Any] = {"cells": [], "front": [], "best": None}
    base = await desk.write(BASE, settings.prompts)
    findings["base"] = desk.cell(BASE, base, base)
    await bench.report(findings)
    waiting = [_cell(desk, settings, subjects, where, base) for where in _grid(settings)]
    if settings.writing.wish:
        waiting.append(_prompted(desk, settings, base))
    async with aclosing(as_they_end(waiting)) as ending:  # type: ignore[type-var]
        async for cell in ending:
            if cell["group"] == PROMPTING:
                findings["prompting"] = cell
            else:
                _add(findings, cell, settings.behaviour.sign)
            await bench.report(findings)
    return await _with_null(desk, settings, subjects, findings)


def _grid(settings: Sweep) -> list[tuple[int, Any, int, float]]:
    """In the order in which a map is read, so that it fills line by line."""
    numbers = range(len(settings.vectors))
    return list(product(numbers, settings.operations, settings.layers, settings.strengths))


async def _cell(
    desk: Desk, settings: Sweep, subjects: Sequence[Subject], where: tuple[int, Any, int, float], base: Answers
) -> dict[str, Any]:
    vector, operation, layer, strength = where
    group = cell_key(*where)
    answers = await desk.write(group, settings.prompts, steer(subjects[vector], layer, strength, operation))
    return desk.cell(group, answers, base, vector=vector, operation=operation, layer=layer, strength=strength)


async def _prompted(desk: Desk, settings: Sweep, base: Answers) -> dict[str, Any]:
    answers = await desk.write(PROMPTING, settings.prompts, system=settings.writing.wish)
    return desk.cell(PROMPTING, answers, base)


def _add(findings: dict[str, Any], cell: dict[str, Any], sign: float) -> None:
    findings["cells"].append(cell)
    findings["front"] = front(findings["cells"], sign)
    best = better(findings["cells"], sign)
    findings["best"] = best["group"] if best else None


async def _with_null(
    desk: Desk, settings: Sweep, subjects: Sequence[Subject], findings: dict[str, Any]
) -> dict[str, Any]:
    best = next((cell for cell in findings["cells"] if cell["group"] == findings["best"]), None)
    if best is None or not settings.directions:
        return findings
    place = (best["layer"], best["strength"], best["operation"])
    null = await null_band(desk, subjects[best["vector"]], *place, settings.prompts, settings.directions)
    return findings | {"null": against_null(best["behaviour"]["mean"], null, settings.behaviour.sign)}
