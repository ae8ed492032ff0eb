"""A vector or a feature in use: how strongly, where, on which tokens. Lanes, presets and the API use the same words."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from django.db.models import Q

from inference.errors import InvalidRequest, NotFound
from inference.types import (
    Condition,
    FeatureRef,
    Intervention,
    ModelInfo,
    Operation,
    Positions,
    Schedule,
    Unit,
    Wire,
)
from steering.refusals import need, parse_uuid
from steering.vectors.models import Vector, VectorQuerySet
from steering.workers.sources import check_feature

MAX_USES = 8
MAX_STRENGTH = 10_000
MAX_THRESHOLD = 1_000_000
MAX_SCHEDULE = 100_000
FEATURE_OPERATIONS = ("add", "clamp", "floor", "cap", "ablate")


@dataclass(frozen=True)
class UseCondition(Wire):
    """As `inference.types.Condition`, in words of the library: `vector` empty is the vector in use itself."""

    threshold: float = 0.0
    vector: str = ""
    layer: int | None = None
    comparison: Literal["above", "below"] = "above"
    measure: Literal["projection", "cosine"] = "cosine"
    decided: Literal["prompt", "token"] = "prompt"
    pooling: Literal["mean", "last"] = "mean"


@dataclass(frozen=True)
class VectorUse(Wire):
    """`vector` is the id of a library entry; `layer` None is the layer it recommends. Not `on` is as if absent.

    With `feature` in place of a vector, a latent of an autoencoder is steered, at its own site: `layer` stays None.
    """

    vector: str = ""
    layer: int | None = None
    operation: Operation = "add"
    strength: float = 0.0
    unit: Unit = "relative"
    positions: Positions = field(default_factory=Positions)
    on: bool = True
    norm_preserving: bool = False
    schedule: Schedule | None = None
    condition: UseCondition | None = None
    feature: FeatureRef | None = None

    @property
    def vectors(self) -> tuple[str, ...]:
        """The library entries that it needs."""
        return tuple(id for id in (self.vector, self.condition.vector if self.condition else "") if id)


def check_uses(uses: tuple[VectorUse, ...], where: str) -> None:
    """What needs no database and no model. `where` goes into the sentence: "lane C". Raises InvalidRequest."""
    place = where[:1].upper() + where[1:]
    count = f"{place} has {len(uses)} interventions; {MAX_USES} is the limit."
    need(len(uses) <= MAX_USES, "intervention_count", count)
    for use in uses:
        _check(use, where)


def _check(use: VectorUse, where: str) -> None:
    if use.feature is None:
        parse_uuid(use.vector, "vector")
    else:
        _check_feature(use, use.feature, where)
    need(abs(use.strength) <= MAX_STRENGTH, "strength", f"Strengths in {where} go from -10000 to 10000.")
    start, stop = use.positions.start or 0, use.positions.stop
    need(start >= 0, "positions", f"The window in {where} cannot start before token 0.")
    need(
        stop is None or stop > start,
        "positions",
        f"The window in {where} ends at token {stop}, which is not after its start {start}. It touches no token.",
    )
    check_details((use,), where)


def _check_feature(use: VectorUse, ref: FeatureRef, where: str) -> None:
    one = f"An intervention in {where} names a vector and a feature. Give each an intervention of its own."
    need(not use.vector, "two_things", one)
    need(
        use.layer is None, "feature_layer", f"A feature in {where} acts at its autoencoder's layer. Leave 'layer' out."
    )
    need(ref.index >= 0, "feature_out_of_range", f"Features count from 0; there is no {ref.index} in {where}.")
    need(
        use.operation in FEATURE_OPERATIONS,
        "feature_operation",
        f"{use.operation.capitalize()} in {where} needs a vector. A feature can be steered with "
        f"{', '.join(FEATURE_OPERATIONS[:-1])} and {FEATURE_OPERATIONS[-1]}.",
    )
    need(
        use.unit != "relative" or use.operation in ("add", "ablate"),
        "feature_unit",
        f"A feature in {where} is set to an activation, which has no relative unit. Say it raw, or in units of the "
        "feature's maximum.",
    )
    need(
        use.condition is None or bool(use.condition.vector),
        "feature_condition",
        f"The condition of a feature in {where} must name the vector that it is read along.",
    )


def check_details(uses: Iterable[VectorUse], where: str) -> None:
    """Schedules and conditions."""
    for use in uses:
        if use.schedule:
            _check_schedule(use.schedule, use.positions, where)
        if use.condition:
            _check_condition(use.condition, use.positions, where)


def _check_schedule(schedule: Schedule, positions: Positions, where: str) -> None:
    limits = f"A schedule in {where} lasts from 1 to {MAX_SCHEDULE:,} generated tokens, not {schedule.tokens:,}."
    need(1 <= schedule.tokens <= MAX_SCHEDULE, "schedule", limits)
    need(
        positions.generated,
        "schedule",
        f"The schedule in {where} concerns generated tokens, which its intervention leaves alone. "
        "Let it steer generated tokens, or remove the schedule.",
    )


def _check_condition(condition: UseCondition, positions: Positions, where: str) -> None:
    if condition.vector:
        parse_uuid(condition.vector, "vector")
    need(
        abs(condition.threshold) <= (1 if condition.measure == "cosine" else MAX_THRESHOLD),
        "threshold",
        f"The threshold {condition.threshold:g} in {where} is out of range: "
        f"a cosine lies between -1 and 1, a projection between -{MAX_THRESHOLD:,} and {MAX_THRESHOLD:,}.",
    )
    need(
        condition.decided == "token" or not positions.prompt,
        "condition_on_prompt",
        f"The condition in {where} is decided when the prompt has been read, so it cannot steer the prompt. "
        "Steer generated tokens only, or decide it at every token.",
    )


def vectors_of(user: Any, uses: Iterable[VectorUse], lent: Collection[UUID] = ()) -> dict[str, Vector]:
    """By id as text, those of the used vectors that `user` may apply. None as user stands for what belongs to nobody.

    `lent` are vectors that the user may apply without seeing them, because a preset that is shared uses them.
    """
    ids = {parse_uuid(text, "vector") for use in uses for text in use.vectors}
    seen: VectorQuerySet = Vector.objects.all()
    mine = Q(owner=None) if user is None else Q(owner=None) | Q(owner=user.pk)
    return {str(vector.pk): vector for vector in seen.filter(mine | Q(pk__in=list(lent)), pk__in=ids)}


def resolve_uses(
    user: Any, uses: Iterable[VectorUse], model: ModelInfo, lent: Collection[UUID] = ()
) -> tuple[Intervention, ...]:
    """What the model side is to do, in the order given. A vector that the user may not use is as absent as none.

    `user` and `lent` as in `vectors_of`.
    Raises NotFound("vector_not_found"), InvalidRequest("vector_model_mismatch").
    """
    wanted = tuple(use for use in uses if use.on)
    found = vectors_of(user, wanted, lent) if wanted else {}
    return tuple(_intervention(use, found, model) for use in wanted)


def _of_feature(use: VectorUse, ref: FeatureRef, found: dict[str, Vector], model: ModelInfo) -> Intervention:
    source = check_feature(model, ref)
    need(
        use.unit != "max" or source.indexed or use.operation == "ablate",
        "no_maximum",
        f"Nobody knows yet how strongly features of {source.id} fire: index a corpus on its page, or give the strength "
        "in raw units.",
    )
    return Intervention(
        operation=use.operation,
        strength=use.strength,
        unit="raw" if use.operation == "ablate" else use.unit,
        positions=use.positions,
        feature=ref,
        norm_preserving=use.norm_preserving,
        schedule=use.schedule,
        condition=_condition(use.condition, source.layer, "", found, model) if use.condition else None,
    )


def _intervention(use: VectorUse, found: dict[str, Vector], model: ModelInfo) -> Intervention:
    if use.feature is not None:
        return _of_feature(use, use.feature, found, model)
    need(use.unit != "max", "unit", "A vector has no largest activation: give its strength in raw or relative units.")
    vector = _usable(use.vector, found, model)
    layer = use.layer if use.layer is not None else vector.facts.layer
    _check_operation(use.operation, vector, layer)
    return Intervention(
        operation=use.operation,
        strength=use.strength,
        unit=use.unit,
        positions=use.positions,
        vector_id=vector.content_id,
        layers=(layer,),
        norm_preserving=use.norm_preserving,
        schedule=use.schedule,
        condition=_condition(use.condition, layer, use.vector, found, model) if use.condition else None,
    )


def _usable(id: str, found: dict[str, Vector], model: ModelInfo) -> Vector:
    vector = found.get(str(UUID(id)))
    if vector is None:
        raise NotFound(
            "vector_not_found",
            f"The vector {id} is not in your library: it was deleted, or it is not yours. "
            "Remove it or pick another vector.",
        )
    if not vector.usable_on(model):
        raise InvalidRequest(
            "vector_model_mismatch",
            f"“{vector.name}” was made on {vector.model_id}, and {model.id} is served here. A direction means nothing "
            "in another model: build the vector again on this one, or remove it.",
        )
    return vector


def _check_operation(operation: Operation, vector: Vector, layer: int) -> None:
    if operation == "affine" and layer not in vector.facts.affine_layers:
        raise InvalidRequest(
            "no_reference",
            f"“{vector.name}” does not say where its negative examples lie at layer {layer}, which affine steering "
            "counts from. Build it again, or use clamp.",
        )
    if operation == "rotate" and len(vector.facts.layers) < 2:
        raise InvalidRequest(
            "no_plane",
            f"“{vector.name}” has a single layer, and rotation takes its second direction from how the vector differs "
            "between layers. Use a vector with more layers, or another operation.",
        )


def _condition(
    condition: UseCondition, steered: int, own: str, found: dict[str, Vector], model: ModelInfo
) -> Condition:
    vector = _usable(condition.vector or own, found, model)
    layer = condition_layer(condition, steered, vector)
    if layer not in vector.facts.layers:
        known = ", ".join(map(str, vector.facts.layers))
        raise InvalidRequest(
            "layer_not_in_vector",
            f"“{vector.name}”, on which a condition rests, has no direction at layer {layer}. It has layers {known}.",
        )
    if condition.decided == "token" and layer > steered:
        raise InvalidRequest(
            "condition_after_edit",
            f"A condition that every token decides is read at layer {layer}, after layer {steered}, which it would "
            f"steer. Read it at a layer up to {steered}, or decide it on the prompt.",
        )
    return Condition(
        layer=layer,
        threshold=condition.threshold,
        vector_id=vector.content_id,
        comparison=condition.comparison,
        measure=condition.measure,
        decided=condition.decided,
        pooling=condition.pooling,
    )


def condition_layer(condition: UseCondition, steered: int, vector: Vector) -> int:
    """Where nothing is said, the steered layer (token), or the one that the vector recommends (prompt)."""
    if condition.layer is not None:
        return condition.layer
    return steered if condition.decided == "token" else vector.facts.layer
