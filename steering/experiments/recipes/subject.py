"""What a recipe knows of a vector, and how it asks for steering with it or with a direction of no meaning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inference.types import Direction, Intervention, Operation, Site
from steering.experiments.settings import unit_of


@dataclass(frozen=True)
class Subject:
    """A vector of the library. `residual_norms` give, per layer, the size of one relative unit of strength."""

    id: str
    name: str
    content_id: str
    layers: tuple[int, ...]
    residual_norms: dict[int, float]
    d_model: int


def steer(subject: Subject, layer: int, strength: float, operation: Operation = "add") -> tuple[Intervention, ...]:
    """Nothing at all where nothing would change: strength 0 is the base, and is measured with it."""
    if strength == 0 and operation in ("add", "ablate"):
        return ()
    unit = unit_of(operation)
    edit = Intervention(
        operation=operation, strength=strength, unit=unit, vector_id=subject.content_id, layers=(layer,)
    )  # fmt: skip
    return (edit,)


def random_steer(
    subject: Subject, layer: int, strength: float, seed: int, operation: Operation = "add"
) -> tuple[Intervention, ...]:
    """A random direction, as large as `strength` of the subject: the same for the same seed, layer and width."""
    drawn = np.random.default_rng([seed, layer, subject.d_model]).normal(size=subject.d_model)
    unit = (drawn / np.linalg.norm(drawn)).astype(np.float32)
    size = strength if unit_of(operation) == "raw" else strength * subject.residual_norms[layer]
    return (Intervention(operation=operation, strength=size, unit="raw", directions=(Direction(Site(layer), unit),)),)
