"""Presets: saved, found by name, applied.

A shared preset lends its vectors: whoever uses it applies them, as its owner could, and in the playground may move
their strength. They are in nobody else's library, cannot be opened, downloaded or put into a preset by others, and end
to be lent with the sharing. Only the owner's own vectors and the starters can be in a preset, so no third person's
vector is ever passed on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet

from inference.errors import InvalidRequest, NotFound
from inference.types import Intervention, ModelInfo
from steering.behaviors import library as behaviors
from steering.behaviors.models import Behavior
from steering.naming import check_description, meant_by, some_of
from steering.presets.content import PresetContent, check_content
from steering.presets.models import Preset, PresetVector
from steering.presets.names import SEPARATOR, check_name, check_version
from steering.vectors.models import Vector
from steering.vectors.uses import UseCondition, VectorUse, condition_layer, resolve_uses, vectors_of
from steering.workers.sources import check_feature

MAX_PRESETS = 500  # of one person


def listed(user: Any, model_id: str = "") -> QuerySet[Preset]:
    """All versions of all presets that `user` may use, of one model or of all."""
    found = Preset.objects.visible_to(user).select_related("owner")
    return found.for_model(model_id) if model_id else found


def model_name(preset: Preset) -> str:
    """`smollm2-135m-instruct::calm@1.0`."""
    return preset.model_name


# ---- finding ----


def find(user: Any, model_id: str, name: str, version: str | None = None) -> Preset:
    """The preset that `user` means by a name: one's own first, then Steerboard's, then one that another person shares.

    Without a version the newest. `name` may say whose: "mira-okafor-3/calm", "steerboard/calm".
    Raises NotFound("preset_not_found") saying which exist, InvalidRequest("preset_ambiguous").
    """
    owner, _, short = name.lower().rpartition("/")
    known = list(listed(user, model_id))
    found = meant_by(user, known, owner, short, version)
    if not found:
        raise _not_found(user, model_id, name, version, known)
    if len(found) > 1:
        ways = some_of(sorted(preset.full_model_name for preset in found))
        raise InvalidRequest(
            "preset_ambiguous", f"Several people share a preset with the name {short}. Say whose is meant: {ways}."
        )
    return found[0]


def find_by_id(user: Any, preset_id: UUID) -> Preset:
    """Raises NotFound("preset_not_found")."""
    preset = listed(user).filter(pk=preset_id).first()
    if preset is None:
        raise NotFound("preset_not_found", "There is no such preset any more: it was deleted, or is no longer shared.")
    return preset


def _not_found(user: Any, model_id: str, name: str, version: str | None, known: list[Preset]) -> NotFound:
    wanted = f"{name}@{version}" if version else name
    return NotFound(
        "preset_not_found",
        f"{model_id} has no preset {wanted[:80]} that you may use. " + _which_exist(user, known),
    )


def _which_exist(user: Any, known: list[Preset]) -> str:
    if not known:
        return "There is none yet: save one from a lane of the playground."
    order = sorted(known, key=lambda preset: (preset.owner_id != user.pk, preset.name, preset.order))
    return f"There are {some_of([preset.model_name.partition(SEPARATOR)[2] for preset in order])}."


def name_for(user: Any, preset: Preset) -> str:
    """The shortest name by which `user` means exactly this preset."""
    try:
        found = find(user, preset.model_id, preset.name, preset.version)
    except InvalidRequest:
        found = None
    return preset.model_name if found == preset else preset.full_model_name


# ---- applying ----


def interventions_of(preset: Preset, model: ModelInfo) -> tuple[Intervention, ...]:
    """What the model side is to do for whoever uses it. Whether they may is decided by `find`.

    Raises InvalidRequest("preset_model_mismatch").
    """
    if not preset.usable_on(model):
        raise InvalidRequest(
            "preset_model_mismatch",
            f"The preset {preset} was made on {preset.model_id}, and {model.id} was asked for. A direction means "
            f"nothing in another model: ask for {preset.model_name}, or make a preset on this model.",
        )
    return resolve_uses(preset.owner, preset.parsed.uses, model)


def lent_to(user: Any, vector_ids: Iterable[str | UUID]) -> set[UUID]:
    """Which of these vectors a preset that somebody shares lends to `user`, to be applied and no more."""
    wanted: list[Any] = list(vector_ids)
    if not wanted:
        return set()
    shared = PresetVector.objects.filter(preset__shared=True, vector__in=wanted)
    return set(shared.exclude(Q(vector__owner=user.pk)).values_list("vector_id", flat=True))


# ---- saving ----


def save(
    owner: Any,
    *,
    name: str,
    version: str,
    model: ModelInfo,
    content: PresetContent,
    description: str = "",
    shared: bool = False,
) -> Preset:
    """Keep a new version. `owner` None is for those that come with Steerboard.

    Raises InvalidRequest for what cannot be kept, NotFound("vector_not_found") for a vector that is not the owner's.
    """
    check_name(name)
    check_version(version)
    check_description(description)
    check_content(content)
    if not model.id:
        raise InvalidRequest("no_model", "No model is served at the moment. Save the preset when one is ready.")
    _refuse_lent(owner, content)
    resolve_uses(owner, content.uses, model)
    vectors = vectors_of(owner, content.uses)
    preset = Preset(owner=owner, name=name, version=version, model_id=model.id, description=description, shared=shared)
    preset.content = _pinned(preset, _fixed(content, vectors, model)).to_wire()
    _leave_room(preset)
    try:
        with transaction.atomic():
            preset.save(force_insert=True)
            PresetVector.objects.bulk_create(PresetVector(preset=preset, vector=v) for v in vectors.values())
    except IntegrityError:
        raise _taken(preset) from None
    return preset


def _refuse_lent(owner: Any, content: PresetContent) -> None:
    if owner is None:
        return
    foreign = {id for use in content.uses for id in use.vectors} - set(vectors_of(owner, content.uses))
    lent = Vector.objects.filter(pk__in=lent_to(owner, foreign)).first() if foreign else None
    if lent is not None:
        raise InvalidRequest(
            "vector_lent",
            f"“{lent.name}” is somebody else's and lent by a preset that they share. It can be used, but not put into "
            "a preset of yours: use theirs, ask them for the vector's file, or build one of your own.",
        )


def _fixed(content: PresetContent, vectors: dict[str, Vector], model: ModelInfo) -> PresetContent:
    """With every layer written down, so that what a version does never changes."""
    uses = tuple(_with_layer(use, vectors, model) for use in content.uses)
    return dataclasses.replace(content, uses=uses)


def _pinned(preset: Preset, content: PresetContent) -> PresetContent:
    """With every behavior named so that it means the same version to everyone. Raises as `behaviors.library.find`."""
    if not content.behaviors:
        return content
    named = {name: behaviors.find(preset.owner, preset.model_id, name) for name in content.behaviors}
    if preset.shared:
        _refuse_private(preset, named.values())
    return dataclasses.replace(
        content,
        behaviors=tuple(dict.fromkeys(named[name].full_name for name in content.behaviors)),
        force_steering=tuple(dict.fromkeys(named[name].full_name for name in content.force_steering)),
    )


def _refuse_private(preset: Preset, used: Iterable[Behavior]) -> None:
    private = [str(b) for b in used if not (b.shared or b.is_starter)]
    if private:
        raise InvalidRequest(
            "behavior_private",
            f"{preset} watches for {some_of(private)}, which nobody else can use yet, so it would fail for them. Share "
            "that first on its page.",
        )


def share(preset: Preset, shared: bool) -> None:
    """Let everyone here use it, or end that, at once. Raises InvalidRequest("behavior_private")."""
    if shared and preset.parsed.behaviors:
        names = preset.parsed.behaviors
        _refuse_private(preset, [behaviors.find(preset.owner, preset.model_id, name) for name in names])
    preset.shared = shared
    preset.save(update_fields=["shared"])


def _with_layer(use: VectorUse, vectors: dict[str, Vector], model: ModelInfo) -> VectorUse:
    if use.feature is not None:  # it acts at its autoencoder's site, which does not change either
        layer = check_feature(model, use.feature).layer
        return dataclasses.replace(use, condition=_with_reading(use.condition, layer, None, vectors))
    vector = vectors[str(UUID(use.vector))]
    layer = vector.facts.layer if use.layer is None else use.layer
    if layer not in vector.facts.layers:
        layers = ", ".join(map(str, vector.facts.layers))
        raise InvalidRequest(
            "layer_not_in_vector", f"“{vector.name}” has no direction at layer {layer}. It has layers {layers}."
        )
    condition = _with_reading(use.condition, layer, vector, vectors)
    return dataclasses.replace(use, vector=str(vector.pk), layer=layer, condition=condition)


def _with_reading(
    condition: UseCondition | None, layer: int, own: Vector | None, vectors: dict[str, Vector]
) -> UseCondition | None:
    """`own` is read where a condition names no vector."""
    if condition is None:
        return None
    read = vectors[str(UUID(condition.vector))] if condition.vector else own
    if read is None:
        raise InvalidRequest("feature_condition", "The condition of a feature must name the vector it is read along.")
    return dataclasses.replace(condition, vector=str(read.pk), layer=condition_layer(condition, layer, read))


def _leave_room(preset: Preset) -> None:
    if preset.owner is not None and Preset.objects.owned_by(preset.owner).count() >= MAX_PRESETS:
        raise InvalidRequest(
            "too_many_presets", f"You have {MAX_PRESETS} versions of presets, which is the most. Delete some first."
        )


def _taken(preset: Preset) -> InvalidRequest:
    return InvalidRequest(
        "preset_exists",
        f"You have {preset} already, and a version never changes. Save it as a new version, or under another name.",
    )
