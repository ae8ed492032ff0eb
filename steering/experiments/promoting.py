"""A cell becomes a preset in one click: its vector at its layer and strength, under a free name."""

from __future__ import annotations

from typing import Any

from django.utils.text import slugify

from inference.errors import InvalidRequest
from inference.types import ModelInfo
from steering.experiments.exporting import conditions_of
from steering.experiments.models import Experiment
from steering.experiments.runner import settings_of
from steering.experiments.settings import unit_of, vectors_of
from steering.naming import MAX_NAME, next_version
from steering.presets import library
from steering.presets.content import PresetContent
from steering.presets.models import Preset
from steering.vectors.models import Vector
from steering.vectors.uses import VectorUse


def preset_of_cell(user: Any, experiment: Experiment, group: str) -> Preset:
    """A new version of the preset that is named after the vector. Raises InvalidRequest, NotFound."""
    cell = next((c for c in conditions_of(experiment.findings) if c["group"] == group and "layer" in c), None)
    if cell is None:
        raise InvalidRequest("no_such_cell", "This cell has not been measured. Choose one that is.")
    settings = settings_of(experiment)
    vector = Vector.objects.visible_to(user).filter(pk=vectors_of(settings)[cell["vector"]]).first()
    if vector is None:
        raise InvalidRequest("vector_not_found", "The vector of this cell is not in your library any more.")
    operation = cell["operation"]
    use = VectorUse(
        str(vector.pk), layer=cell["layer"], operation=operation, strength=cell["strength"],
        unit=unit_of(operation),
    )  # fmt: skip
    writing = settings.writing
    sampling = {"temperature": writing.temperature, "repetition_penalty": writing.repetition_penalty}
    name = slugify(vector.slug or vector.name)[:MAX_NAME] or "found"
    known = Preset.objects.owned_by(user).for_model(experiment.model_id).filter(name=name)
    return library.save(
        user,
        name=name,
        version=next_version([preset.version for preset in known]) if known else "1.0",
        model=ModelInfo("ready", experiment.model_id),
        content=PresetContent(uses=(use,), sampling=sampling),
        description=f"From the experiment “{experiment.name}”, L{cell['layer']} at {cell['strength']:g}×.",
    )
