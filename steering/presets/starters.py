"""The presets that come with Steerboard: starter vectors as they were measured, under names that programs rely on."""

from __future__ import annotations

from django.db import transaction

from inference.types import ModelInfo
from steering.datasets import starter_catalog
from steering.naming import FIRST_VERSION
from steering.presets.content import PresetContent
from steering.presets.library import save
from steering.presets.measured import statement
from steering.presets.models import Preset
from steering.vectors.evaluation import Evaluation
from steering.vectors.models import Vector
from steering.vectors.uses import VectorUse

# Raise a version when what the preset does changes, and leave the old line: programs call presets by version.
STARTERS = {"calm": "1.0", "brevity": "1.0", "tabby-cats": "1.0"}
SAMPLING = {"temperature": 0.4, "top_p": 0.95, "repetition_penalty": 1.15}
# These are there whatever was measured, and say so; `manage.py presets` makes them for any model.
NAMED = (
    "brevity",
    "truthfulness",
    "json_compliance",
    "format_rigidity",
    "refusal_strength",
    "safety_style",
    "domain_specific",
    "tone_control",
)


def load_starter_presets() -> list[Preset]:
    """Idempotent. A starter vector that is not there has no preset; nor one that is not measured to work, but for those
    of a fixed name, whose description says it."""
    vectors = Vector.objects.filter(owner=None, slug__in={*STARTERS, *NAMED}).order_by("slug", "model_id")
    return [preset for vector in vectors if (preset := load_preset(vector))]


@transaction.atomic
def load_preset(vector: Vector) -> Preset | None:
    """The preset of one starter vector. What it says of itself follows what was measured last."""
    measured = Evaluation.of(vector.evaluation)
    if measured is None or not (vector.slug in NAMED or measured.verdict == "works"):
        return None
    version = measured.version or STARTERS.get(vector.slug, FIRST_VERSION)
    description = description_of(vector, measured)
    here = Preset.objects.filter(owner=None, name=vector.slug, version=version)
    if known := here.for_model(vector.model_id).first():
        if known.description != description:
            known.description = description
            known.save(update_fields=["description"])
        return known
    return save(
        None,
        name=vector.slug,
        version=version,
        model=ModelInfo("ready", vector.model_id),
        content=_content(vector, measured),
        description=description,
    )


def _content(vector: Vector, measured: Evaluation) -> PresetContent:
    """Named presets leave sampling to the request, but for the penalty without which small models loop."""
    use = VectorUse(str(vector.pk), layer=measured.layer, strength=measured.strength)
    if vector.slug in STARTERS:
        return PresetContent(uses=(use,), sampling=SAMPLING)
    penalty = vector.evaluation.get("repetition_penalty", 1.0)
    return PresetContent(uses=(use,), sampling={"repetition_penalty": penalty} if penalty != 1.0 else {})


def description_of(vector: Vector, measured: Evaluation) -> str:
    known = starter_catalog.starter(vector.slug)
    if known is None:
        return vector.description
    says = f"{known.tagline[:1].upper()}{known.tagline[1:]}."
    way = "chat messages" if vector.evaluation.get("mode", known.mode) == "chat" else "texts to continue"
    if measured.chance is None:
        return f"{says} Measured with {way}."
    what = "" if vector.slug in STARTERS else f" {known.description.partition(' The other side')[0]}"
    return f"{says} {statement(measured, vector.model_id, way)}{what}"
