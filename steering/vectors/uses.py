"""A vector in use: with which strength, where, on which tokens. Lanes, presets and the API say it in the same words."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Q

from inference.errors import InvalidRequest, NotFound
from inference.types import Intervention, ModelInfo, Operation, Positions, Unit, Wire
from steering.refusals import need, parse_uuid
from steering.vectors.models import Vector, VectorQuerySet

MAX_USES = 8
MAX_STRENGTH = 10_000


@dataclass(frozen=True)
class VectorUse(Wire):
    """`vector` is the id of a library entry; `layer` None is the layer it recommends. Not `on` is as if absent."""

    vector: str
    layer: int | None = None
    operation: Operation = "add"
    strength: float = 0.0
    unit: Unit = "relative"
    positions: Positions = field(default_factory=Positions)
    on: bool = True


def check_uses(uses: tuple[VectorUse, ...], where: str) -> None:
    """What needs no database and no model. `where` goes into the sentence: "lane C". Raises InvalidRequest."""
    place = where[:1].upper() + where[1:]
    count = f"{place} has {len(uses)} interventions; {MAX_USES} is the limit."
    need(len(uses) <= MAX_USES, "intervention_count", count)
    for use in uses:
        _check(use, where)


def _check(use: VectorUse, where: str) -> None:
    parse_uuid(use.vector, "vector")
    need(abs(use.strength) <= MAX_STRENGTH, "strength", f"Strengths in {where} go from -10000 to 10000.")
    start, stop = use.positions.start or 0, use.positions.stop
    need(start >= 0, "positions", f"The window in {where} cannot start before token 0.")
    need(
        stop is None or stop > start,
        "positions",
        f"The window in {where} ends at token {stop}, which is not after its start {start}. It touches no token.",
    )


def vectors_of(user: Any, uses: Iterable[VectorUse], lent: Collection[UUID] = ()) -> dict[str, Vector]:
    """By id as text, those of the used vectors that `user` may apply. None as user stands for what belongs to nobody.

    `lent` are vectors that the user may apply without seeing them, because a preset that is shared uses them.
    """
    ids = {parse_uuid(use.vector, "vector") for use in uses}
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
    return tuple(_intervention(use, found.get(str(UUID(use.vector))), model) for use in wanted)


def _intervention(use: VectorUse, vector: Vector | None, model: ModelInfo) -> Intervention:
    if vector is None:
        raise NotFound(
            "vector_not_found",
            f"The vector {use.vector} is not in your library: it was deleted, or it is not yours. "
            "Remove it or pick another vector.",
        )
    if not vector.usable_on(model):
        raise InvalidRequest(
            "vector_model_mismatch",
            f"“{vector.name}” was made on {vector.model_id}, and {model.id} is served here. A direction means nothing "
            "in another model: build the vector again on this one, or remove it.",
        )
    return Intervention(
        operation=use.operation,
        strength=use.strength,
        unit=use.unit,
        positions=use.positions,
        vector_id=vector.content_id,
        layers=(use.layer if use.layer is not None else vector.facts.layer,),
    )
