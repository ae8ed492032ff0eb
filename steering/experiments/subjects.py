"""The vectors of an experiment, as its recipe needs them."""

from __future__ import annotations

from typing import Any

from inference.errors import InvalidRequest
from inference.types import ModelInfo
from steering.experiments.recipes.subject import Subject
from steering.experiments.settings import Evaluate, Settings, vectors_of
from steering.vectors.models import Vector
from steering.vectors.uses import VectorUse, resolve_uses
from steering.vectors.uses import vectors_of as rows_of


def subjects_of(user: Any, settings: Settings, model: ModelInfo) -> list[Subject]:
    """In the order of the settings. Raises NotFound, InvalidRequest: a vector that is gone, of another model, or
    without a direction or residual norm at a layer that is asked for."""
    uses = [VectorUse(vector) for vector in vectors_of(settings)]
    resolve_uses(user, uses, model)
    rows = rows_of(user, uses)
    subjects = [_subject(rows[use.vector], model) for use in uses]
    layers = (settings.layer,) if isinstance(settings, Evaluate) else settings.layers
    for subject in subjects:
        for layer in layers:
            _check_layer(subject, layer)
    return subjects


def _subject(vector: Vector, model: ModelInfo) -> Subject:
    facts = vector.facts
    return Subject(
        id=str(vector.pk),
        name=vector.name,
        content_id=vector.content_id,
        layers=tuple(facts.layers),
        residual_norms=facts.residual_norms,
        d_model=model.d_model,
    )


def _check_layer(subject: Subject, layer: int) -> None:
    if layer not in subject.layers or layer not in subject.residual_norms:
        layers = ", ".join(map(str, subject.layers))
        raise InvalidRequest(
            "layer_not_in_vector", f"“{subject.name}” has no direction at layer {layer}. It has layers {layers}."
        )
