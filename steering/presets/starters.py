"""The presets that come with Steerboard: those starter vectors that were measured to work, as they were measured."""

from __future__ import annotations

from django.db import transaction

from inference.types import ModelInfo
from steering.datasets import starter_catalog
from steering.presets.content import PresetContent
from steering.presets.library import save
from steering.presets.models import Preset
from steering.vectors.evaluation import Evaluation
from steering.vectors.models import Vector
from steering.vectors.uses import VectorUse

# Raise a version when what the preset does changes, and leave the old line: programs call presets by version.
STARTERS = {"calm": "1.0", "brevity": "1.0", "tabby-cats": "1.0"}
SAMPLING = {"temperature": 0.4, "top_p": 0.95, "repetition_penalty": 1.15}


def load_starter_presets() -> list[Preset]:
    """Idempotent. A starter vector that is not there, or is not measured to work, has no preset."""
    vectors = Vector.objects.filter(owner=None, slug__in=STARTERS)
    return [_load(vector, found) for vector in vectors if (found := Evaluation.of(vector.evaluation)) and _works(found)]


def _works(evaluation: Evaluation) -> bool:
    return evaluation.verdict == "works"


@transaction.atomic
def _load(vector: Vector, measured: Evaluation) -> Preset:
    version = STARTERS[vector.slug]
    use = VectorUse(str(vector.pk), layer=measured.layer, strength=measured.strength)
    content = PresetContent(uses=(use,), sampling=SAMPLING)
    known = Preset.objects.filter(owner=None, name=vector.slug, version=version).for_model(vector.model_id).first()
    if known:
        return known
    return save(
        None,
        name=vector.slug,
        version=version,
        model=ModelInfo("ready", vector.model_id),
        content=content,
        description=_description(vector),
    )


def _description(vector: Vector) -> str:
    known = starter_catalog.starter(vector.slug)
    if known is None:
        return vector.description
    way = "chat messages" if known.mode == "chat" else "text to continue"
    return f"{known.tagline[:1].upper()}{known.tagline[1:]}. Measured with {way}."
