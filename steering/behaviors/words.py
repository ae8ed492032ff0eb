"""Behaviors in words: what they do where they fire, as lists and pages say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steering.behaviors.corrector import Corrector
from steering.behaviors.models import Behavior
from steering.vectors.models import Vector
from steering.vectors.uses import VectorUse

UNITS = {"relative": "×", "raw": " raw", "max": " × its maximum"}


@dataclass(frozen=True)
class UseInWords:
    name: str
    url: str
    where: str
    operation: str
    strength: str


def action_in_words(corrector: Corrector) -> str:
    match corrector.action:
        case "steer":
            return "steers, the more the higher it reads" if corrector.dose == "proportional" else "steers"
        case "stop":
            return "stops the answer"
        case "regenerate":
            return f"writes the last {corrector.span} tokens again, up to {corrector.attempts} times"
    return "observes"


def uses_in_words(behavior: Behavior, user: Any) -> list[UseInWords]:
    """What it steers with; only vectors that this person can see have an address."""
    seen = {str(v.pk): v for v in behavior.vectors.all()}
    return [_use(use, seen, user) for use in behavior.corrects.uses]


def _use(use: VectorUse, seen: dict[str, Vector], user: Any) -> UseInWords:
    strength = f"{use.strength:+g}{UNITS[use.unit]}"
    if use.feature is not None:
        return UseInWords(
            f"feature {use.feature.index} of {use.feature.source}", "", "its site", use.operation, strength
        )
    vector = seen.get(use.vector)
    mine = vector is not None and (vector.owner_id is None or vector.owner_id == user.pk)
    name = vector.name if vector else "a vector"
    url = vector.get_absolute_url() if vector and mine else ""
    return UseInWords(name, url, f"L{use.layer}", use.operation, strength)
