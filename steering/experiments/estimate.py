"""How long an experiment will take and how many tokens it may need, before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from inference.types import ModelInfo
from steering.access.estimate import tokens_in
from steering.experiments.settings import Find, Settings

USUAL_RATE = 250.0  # tokens per second of the default model on a small CPU, where none is known yet
READING = 0.4  # of writing: every answer is read once more, to see how much it surprises the base
READINGS = {"naming": 3, "judge": 2}  # of each answer, where the measure reads it too


@dataclass(frozen=True)
class Estimate:
    points: int
    tokens: int
    seconds: float


def estimate(settings: Settings, model: ModelInfo, rate: float = 0.0) -> Estimate:
    """`rate` in tokens written per second, of experiments before this one; 0: not known."""
    prompts = (*settings.prompts, *(settings.held_out if isinstance(settings, Find) else ()))
    written = settings.points * settings.writing.max_tokens
    readings = READINGS.get(settings.behaviour.kind, 1)
    read = settings.points * tokens_in(prompts) // max(1, len(prompts)) + readings * written
    seconds = (1 + READING * readings) * written / (rate or USUAL_RATE)
    return Estimate(settings.points, written + read, round(seconds, 1))
