"""What a person chooses to be done where a detector fires, and the corrector that comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from inference.errors import InvalidRequest
from inference.types import FeatureRef, Operation, Unit, WatchAction, Wire
from steering.behaviors.corrector import Corrector, check_corrector
from steering.refusals import need, parse_uuid
from steering.vectors.models import Vector
from steering.vectors.uses import MAX_STRENGTH, VectorUse

FITTED = "fitted"  # the vector that the fit makes
FEATURES = "features"


@dataclass(frozen=True)
class Correction(Wire):
    """`steer_with` is the fit's own vector, the id of one in the library, or the features that are named.

    `strength` is in relative units; None is what the vector recommends, and 1 for features. The fit's own vector is
    always steered away from, so its strength counts as positive; all others are signed. `operation` and `unit` are
    those of features.
    """

    action: WatchAction = "steer"
    steer_with: str = FITTED
    strength: float | None = None
    features: tuple[FeatureRef, ...] = ()
    uses: tuple[VectorUse, ...] = ()  # in place of all that, as they are
    operation: Operation = "ablate"
    unit: Unit = "raw"
    dose: Literal["fixed", "proportional"] = "fixed"
    span: int = 16
    attempts: int = 3
    reads_prompt: bool = False


def check_correction(owner: Any, correction: Correction) -> None:
    """Whether it can be made once the fit's own vector is there. Raises InvalidRequest."""
    need(abs(correction.strength or 0) <= MAX_STRENGTH, "strength", f"Strengths go up to {MAX_STRENGTH:,}.")
    if correction.action == "steer" and correction.steer_with == FITTED and not correction.uses:
        return
    check_corrector(corrector_of(owner, correction, None, 0))


def corrector_of(owner: Any, correction: Correction, fitted: Vector | None, layer: int) -> Corrector:
    """`fitted` is the fit's own vector and `layer` where its detector reads. Raises InvalidRequest."""
    return Corrector(
        action=correction.action,
        uses=_uses(owner, correction, fitted, layer) if correction.action == "steer" else (),
        dose=correction.dose,
        span=correction.span,
        attempts=correction.attempts,
        reads_prompt=correction.reads_prompt,
    )


def _uses(owner: Any, correction: Correction, fitted: Vector | None, layer: int) -> tuple[VectorUse, ...]:
    strength = correction.strength
    if correction.uses:
        for id in (id for use in correction.uses for id in use.vectors):
            _of_library(owner, id)
        return correction.uses
    if correction.steer_with == FEATURES:
        return tuple(
            VectorUse(
                operation=correction.operation,
                strength=1.0 if strength is None else strength,
                unit=correction.unit,
                feature=ref,
            )
            for ref in correction.features
        )
    if correction.steer_with == FITTED:
        need(
            fitted is not None,
            "no_fitted_vector",
            "The vector that the fit made is not in your library any more. Choose another to steer with.",
        )
        assert fitted is not None
        away = -abs(fitted.facts.strength if strength is None else strength)
        return (VectorUse(str(fitted.pk), layer=layer, strength=away),)
    vector = _of_library(owner, correction.steer_with)
    dose = vector.facts.dose if strength is None else strength
    return (VectorUse(str(vector.pk), operation=vector.facts.operation, strength=dose),)


def _of_library(owner: Any, id: str) -> Vector:
    vector = Vector.objects.visible_to(owner).filter(pk=parse_uuid(id, "vector")).first()
    if vector is None:
        raise InvalidRequest("vector_not_found", "That vector is not in your library. Choose another to steer with.")
    return vector


def feature_refs(text: str) -> tuple[FeatureRef, ...]:
    """From "9-res-4k/1203, 9-res-4k/88". Raises InvalidRequest("feature_name")."""
    found = []
    for name in text.replace("\n", ",").split(","):
        if not name.strip():
            continue
        source, _, index = name.strip().rpartition("/")
        need(
            bool(source) and index.isascii() and index.isdecimal() and len(index) < 10,
            "feature_name",
            f"“{name.strip():.60}” does not name a feature. Write the autoencoder, a slash and the number, such as "
            "9-res-4k/1203.",
        )
        found.append(FeatureRef(source, int(index)))
    return tuple(found)
