"""Behaviors: saved, found by name. Sharing lends the vectors in them, as that of a preset does.

Whoever uses a shared behavior has it applied with its owner's vectors, which stay the owner's: nobody else lists, opens
or downloads them through it.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from inference.errors import InvalidRequest, NotFound
from inference.types import ModelInfo
from steering import gateway, naming
from steering.audit.models import AuditEntry
from steering.audit.trail import record
from steering.behaviors.corrector import Corrector, check_corrector
from steering.behaviors.models import AlertRule, Behavior, BehaviorVector
from steering.naming import check_description, meant_by, nearest, some_of
from steering.naming import next_version as next_version
from steering.refusals import need
from steering.vectors.models import Vector
from steering.vectors.uses import VectorUse, resolve_uses, vectors_of
from steering.workers.sources import check_feature

MAX_BEHAVIORS = 500  # versions of one person


def listed(user: Any, model_id: str = "") -> QuerySet[Behavior]:
    """All versions of all behaviors that `user` may use, of one model or of all."""
    found = Behavior.objects.visible_to(user).select_related("owner")
    return found.for_model(model_id) if model_id else found


def find(user: Any, model_id: str, name: str) -> Behavior:
    """The behavior that `user` means: one's own first, then Steerboard's, then one that another person shares.

    `name`, `name@version` or `owner/name@version`; without a version the newest.
    Raises NotFound("behavior_not_found") naming the nearest, InvalidRequest("behavior_ambiguous").
    """
    path, _, version = name.strip().lower().partition("@")
    owner, _, short = path.rpartition("/")
    known = list(listed(user, model_id))
    found = meant_by(user, known, owner, short, version or None)
    if not found:
        raise _not_found(model_id, name, known)
    if len(found) > 1:
        raise InvalidRequest(
            "behavior_ambiguous",
            f"Several people share a behavior with the name {short}. Say whose is meant: "
            f"{some_of(sorted(b.full_name for b in found))}.",
        )
    return found[0]


def _not_found(model_id: str, name: str, known: list[Behavior]) -> NotFound:
    said = f"{model_id or 'This model'} has no behavior {name[:80]} that you may use. "
    names = sorted({b.name for b in known} | {str(b) for b in known} | {b.full_name for b in known})
    if close := nearest(name.strip().lower(), names):
        return NotFound("behavior_not_found", f"{said}Did you mean {close}?")
    if not known:
        return NotFound("behavior_not_found", f"{said}There is none yet: make one on the page Behaviors.")
    return NotFound("behavior_not_found", f"{said}There are {some_of(sorted({str(b) for b in known}))}.")


def find_by_id(user: Any, pk: UUID) -> Behavior:
    """Raises NotFound("behavior_not_found")."""
    behavior = listed(user).filter(pk=pk).first()
    if behavior is None:
        raise NotFound("behavior_not_found", "There is no such behavior: it was deleted, or is no longer shared.")
    return behavior


def versions_of(user: Any, behavior: Behavior) -> list[Behavior]:
    """All versions of it that the user may see, newest first."""
    same = listed(user, behavior.model_id).filter(owner=behavior.owner_id, name=behavior.name)
    return sorted(same, key=lambda other: other.order, reverse=True)


# ---- saving ----


check_name = partial(naming.check_name, noun="behavior", such_as="anger or long-answers")
check_version = partial(naming.check_version, noun="behavior")


def save(behavior: Behavior, corrector: Corrector) -> Behavior:
    """Keep a new version, given everything but its corrector. Raises InvalidRequest for what cannot be kept."""
    check_name(behavior.name)
    check_version(behavior.version)
    check_corrector(corrector)
    check_description(behavior.description)
    model = _model_of(behavior, corrector)
    resolve_uses(behavior.owner, corrector.uses, model)
    vectors = vectors_of(behavior.owner, corrector.uses)
    fixed = tuple(_fixed(use, vectors, behavior.read.layer, model) for use in corrector.uses)
    behavior.corrector = dataclasses.replace(corrector, uses=fixed).to_wire()
    _leave_room(behavior)
    try:
        with transaction.atomic():
            behavior.save(force_insert=True)
            BehaviorVector.objects.bulk_create(BehaviorVector(behavior=behavior, vector=v) for v in vectors.values())
    except IntegrityError:
        raise InvalidRequest(
            "behavior_exists",
            f"You have {behavior} already, and a version never changes. Save it as a new version, or under another "
            "name.",
        ) from None
    return behavior


def save_version(old: Behavior, *, version: str, threshold: float, corrector: Corrector, description: str) -> Behavior:
    """The same detector with another threshold or correction; alerts and samples stay as they were set."""
    new = Behavior(
        owner=old.owner,
        name=old.name,
        version=version,
        description=description,
        shared=old.shared,
        model_id=old.model_id,
        direction=old.direction,
        dataset=old.dataset,
        dataset_version=old.dataset_version,
        detector=old.detector,
        threshold=threshold,
        keep_samples=old.keep_samples,
    )
    with transaction.atomic():
        save(new, corrector)
        if rule := AlertRule.objects.filter(behavior=old).first():
            AlertRule.objects.create(behavior=new, percent=rule.percent, runs=rule.runs, email=rule.email)
    return new


def _model_of(behavior: Behavior, corrector: Corrector) -> ModelInfo:
    """Features can only be checked while their model is served; vectors at any time."""
    if any(use.feature for use in corrector.uses):
        return gateway.model_info(model=behavior.model_id)
    return ModelInfo("ready", behavior.model_id)


def _fixed(use: VectorUse, vectors: dict[str, Vector], read_at: int, model: ModelInfo) -> VectorUse:
    """With its layer written down: none before the probe's, since what is steered by a reading must follow it."""
    if use.feature is not None:
        layer = check_feature(model, use.feature).layer
        need(
            layer >= read_at,
            "steers_before_reading",
            f"The detector reads layer {read_at}, and features of {use.feature.source} act at layer {layer}, before "
            "it. Choose features of a later layer, or fit the detector at an earlier one.",
        )
        return use
    vector = vectors[str(UUID(use.vector))]
    later = [layer for layer in vector.facts.layers if layer >= read_at]
    layer = use.layer if use.layer is not None else _nearest_layer(vector, later)
    if layer not in vector.facts.layers:
        layers = ", ".join(map(str, vector.facts.layers))
        raise InvalidRequest(
            "layer_not_in_vector", f"“{vector.name}” has no direction at layer {layer}. It has layers {layers}."
        )
    if layer < read_at:
        raise InvalidRequest(
            "steers_before_reading",
            f"The detector reads layer {read_at}, and layer {layer} comes before it. Steer at layer {read_at} or later"
            + (f", such as {later[0]}." if later else f"; “{vector.name}” has none, so choose another vector."),
        )
    return dataclasses.replace(use, vector=str(vector.pk), layer=layer)


def _nearest_layer(vector: Vector, later: list[int]) -> int:
    recommended = vector.facts.layer
    return recommended if recommended in later or not later else later[0]


def _leave_room(behavior: Behavior) -> None:
    if behavior.owner is not None and Behavior.objects.owned_by(behavior.owner).count() >= MAX_BEHAVIORS:
        raise InvalidRequest(
            "too_many_behaviors",
            f"You have {MAX_BEHAVIORS} versions of behaviors, which is the most. Delete some first.",
        )


# ---- describing, sharing, deleting ----


@transaction.atomic
def rename(behavior: Behavior, name: str) -> None:
    """Call all versions of it by another name. Raises InvalidRequest for one that is none, or is taken."""
    check_name(name)
    mine = Behavior.objects.filter(owner=behavior.owner).for_model(behavior.model_id)
    if mine.filter(name=name).exists():
        raise InvalidRequest("behavior_exists", f"You have a behavior {name} already. Choose another name.")
    mine.filter(name=behavior.name).update(name=name)
    behavior.name = name


def share(behavior: Behavior, shared: bool) -> None:
    """Let everyone here use it, with its owner's vectors; or end that, at once."""
    if behavior.shared == shared:
        return
    behavior.shared = shared
    behavior.save(update_fields=["shared"])
    action = AuditEntry.Action.BEHAVIOR_SHARED if shared else AuditEntry.Action.BEHAVIOR_UNSHARED
    record(action, f"{behavior} of {behavior.owner}")


def delete(behavior: Behavior) -> None:
    """With its counts, alerts and samples. Vectors, datasets and saved runs stay."""
    said = f"{behavior} of {behavior.owner}"
    behavior.delete()
    record(AuditEntry.Action.BEHAVIOR_DELETED, said)
