"""The guided path's offers: starter vectors with what was measured about each. Those that work come first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inference.types import ModelInfo
from steering.datasets import starter_catalog
from steering.playground.schema import Lane, Mode, default_lanes
from steering.vectors.evaluation import Evaluation
from steering.vectors.models import Vector
from steering.vectors.uses import VectorUse

ORDER = {"works": 0, "": 1, "weak": 2, "fails": 3}
SAYS = {
    "works": "",
    "": "Not measured on this model yet.",
    "weak": "Measured as weak on this model: expect a small change, or none.",
    "fails": "Measured on this model: no change could be shown. It probably needs a larger model.",
}


@dataclass(frozen=True)
class Starter:
    """One card, at the layer and strength that were measured, or else those recommended.

    `example` is a recorded pair of answers, {"prompt", "base", "steered"}, or None.
    """

    vector: Vector
    name: str
    tagline: str
    prompt: str
    wish: str
    verdict: str
    says: str
    example: dict[str, Any] | None
    usable: bool
    layer: int
    strength: float
    mode: Mode

    def to_page(self) -> dict[str, Any]:
        return {
            "vector": str(self.vector.pk), "name": self.name, "prompt": self.prompt, "wish": self.wish,
            "verdict": self.verdict, "says": self.says, "example": self.example, "usable": self.usable,
            "layer": self.layer, "strength": self.strength, "mode": self.mode,
        }  # fmt: skip


def starters(model: ModelInfo) -> list[Starter]:
    """All starter vectors, those first that can be used here and were measured to work."""
    entries = starter_catalog.starters()
    place = [entry.slug for entry in entries]
    rows = Vector.objects.filter(owner=None, slug__in=place)
    found = [_starter(vector, entries[place.index(vector.slug)], model) for vector in rows]
    return sorted(found, key=lambda s: (not s.usable, ORDER.get(s.verdict, 1), place.index(s.vector.slug)))


def _starter(vector: Vector, entry: starter_catalog.Starter, model: ModelInfo) -> Starter:
    evaluation = Evaluation.of(vector.evaluation)
    verdict = evaluation.verdict if evaluation else ""
    return Starter(
        vector=vector,
        name=entry.name,
        tagline=entry.tagline,
        prompt=entry.guided_prompt,
        wish=entry.wish,
        verdict=verdict,
        says=SAYS.get(verdict, ""),
        example=_example(evaluation, entry.guided_prompt),
        usable=vector.usable_on(model),
        layer=evaluation.layer if evaluation else vector.facts.layer,
        strength=evaluation.strength if evaluation else vector.facts.strength,
        mode=entry.mode,
    )


def _example(evaluation: Evaluation | None, prompt: str) -> dict[str, Any] | None:
    """The recorded answers to the guided prompt, or to another one where that was not among them."""
    samples = evaluation.samples if evaluation else ()
    chosen = next((s for s in samples if s["prompt"] == prompt), samples[0] if samples else None)
    return {name: chosen[name] for name in ("prompt", "base", "steered")} if chosen else None


def mode_for(vector: Vector | None) -> Mode:
    """How a starter's prompts are meant; chat for everything else."""
    entry = starter_catalog.starter(vector.slug) if vector and vector.is_starter else None
    return entry.mode if entry else "chat"


def wish_for(vector: Vector) -> str:
    """The system prompt that asks for what a starter vector steers towards; empty for all other vectors."""
    entry = starter_catalog.starter(vector.slug) if vector.is_starter else None
    return entry.wish if entry else ""


def lanes_for(vector: Vector | None) -> tuple[Lane, ...]:
    """Base, the wish as a prompt, and the vector at its recommended layer and strength."""
    base, prompted, steered = default_lanes()
    if vector is None:
        return base, prompted, steered
    facts = vector.facts
    chip = VectorUse(str(vector.pk), layer=facts.layer, operation=facts.operation, strength=facts.dose)
    return (
        base,
        Lane(prompted.key, prompted.name, prompted.colour, system_prompt=wish_for(vector)),
        Lane(steered.key, steered.name, steered.colour, interventions=(chip,)),
    )
