"""How long an experiment will take and how many tokens it may need, before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from inference.types import ModelInfo
from steering.access.estimate import tokens_in
from steering.experiments.settings import Find, Settings

USUAL_RATE = 250.0  # tokens per second of the default model on a small CPU, where none is known yet
READING = 1.4  # every answer is read once more, to judge it


@dataclass(frozen=True)
class Estimate:
    points: int
    tokens: int
    seconds: float


def estimate(settings: Settings, model: ModelInfo, rate: float = 0.0) -> Estimate:
    """`rate` in tokens written per second, of experiments before this one; 0: not known."""
    prompts = (*settings.prompts, *(settings.held_out if isinstance(settings, Find) else ()))
    written = settings.points * settings.writing.max_tokens
    read = settings.points * tokens_in(prompts) // max(1, len(prompts))
    return Estimate(settings.points, written + read, round(READING * written / (rate or USUAL_RATE), 1))
