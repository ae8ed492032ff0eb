"""A request's interventions turned into edits, or a refusal that names the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from inference.edits import Edit, compile_intervention
from inference.errors import InvalidRequest
from inference.features import compile_feature
from inference.types import Intervention, Positions, SteeringVector

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

Find = Callable[[str], SteeringVector]

MAX_INTERVENTIONS = 128


def edits_of(interventions: tuple[Intervention, ...], model: LoadedModel, find: Find) -> list[Edit]:
    """Check and compile what one row is to be done to. Raises InvalidRequest or NotFound."""
    return [edit for source in _checked(interventions) for edit in _compile(source, model, find)]


def _checked(interventions: tuple[Intervention, ...]) -> Iterable[Intervention]:
    if len(interventions) > MAX_INTERVENTIONS:
        raise InvalidRequest("too_many_interventions", f"At most {MAX_INTERVENTIONS} interventions fit one request.")
    for i in interventions:
        if (i.vector_id is not None) + bool(i.directions) + (i.feature is not None) != 1:
            raise InvalidRequest("one_source", "An intervention needs one of vector_id, directions and feature.")
        if i.vector_id is not None and not i.layers:
            raise InvalidRequest("no_layer", "Say at which layers the vector is to act, for example layers [9].")
        if i.feature is not None and i.layers:
            raise InvalidRequest("layers_of_feature", "A feature acts where its source reads. Leave layers out.")
        check_positions(i.positions, "intervention")
    return interventions


def check_positions(window: Positions, what: str) -> None:
    """Raises InvalidRequest for a window that holds no token."""
    if (window.start or 0) < 0 or (window.stop is not None and window.stop <= (window.start or 0)):
        raise InvalidRequest("bad_window", "A position window needs 0 <= start < stop.")
    if not (window.prompt or window.generated):
        raise InvalidRequest("no_positions", f"The {what} touches neither prompt nor generated tokens.")


def _compile(source: Intervention, model: LoadedModel, find: Find) -> list[Edit]:
    vectors = {id: _checked_vector(find(id), model) for id in source.vector_ids}
    named = source.condition.vector_id if source.condition else None
    on_condition = vectors[named] if named is not None else None
    if source.feature is not None:
        return compile_feature(source, model, on_condition)
    vector = vectors[source.vector_id] if source.vector_id is not None else None
    return compile_intervention(source, vector, model.n_layers, model.d_model, on_condition)


def _checked_vector(vector: SteeringVector, model: LoadedModel) -> SteeringVector:
    if (vector.model, vector.revision) != (model.id, model.revision):
        raise InvalidRequest(
            "vector_model_mismatch",
            f"This vector was made on {vector.model} (revision {vector.revision}); {model.id} (revision "
            f"{model.revision}) is served here. Build it again on this model, or pick another vector.",
        )
    return vector
