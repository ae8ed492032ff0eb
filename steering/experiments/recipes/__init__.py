"""The recipes: pure functions from settings to findings, over a bench."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steering.experiments.bench import Bench
from steering.experiments.recipes.evaluate import evaluate
from steering.experiments.recipes.find import find
from steering.experiments.recipes.subject import Subject
from steering.experiments.recipes.sweep import sweep
from steering.experiments.settings import Find, Settings, Sweep


async def run_recipe(bench: Bench, settings: Settings, subjects: Sequence[Subject]) -> dict[str, Any]:
    """The findings, as JSON. Raises InferenceError for what the model side cannot do."""
    if isinstance(settings, Sweep):
        return await sweep(bench, settings, subjects)
    if isinstance(settings, Find):
        return await find(bench, settings, subjects[0])
    return await evaluate(bench, settings, subjects[0])
