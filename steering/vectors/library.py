"""The ways into the library: a finished build, an uploaded file, a starter."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import RestrictedError
from django.shortcuts import get_object_or_404

from inference.errors import InvalidRequest
from inference.types import SteeringVector
from steering import gateway
from steering.datasets.models import Dataset
from steering.vectors.evaluation import recommended
from steering.vectors.facts import summary_of
from steering.vectors.models import Vector


def vector_keep(*, owner: Any, name: str, summary: dict[str, Any], **fields: Any) -> Vector:
    """Add a row for a vector whose bytes are already stored under `summary["id"]`."""
    return Vector.objects.create(
        owner=owner,
        name=name,
        content_id=summary["id"],
        model_id=summary["model"],
        revision=summary["revision"],
        method=summary["method"],
        summary=summary,
        **fields,
    )


def vector_upload(*, owner: Any, name: str, data: bytes) -> tuple[Vector, bool]:
    """Store a file and add it to the owner's library; False when it was there already.

    Raises InferenceError with a sentence for a file that is no steering vector, or is damaged.
    """
    vector = stored(data)
    known = Vector.objects.visible_to(owner).filter(content_id=vector.id).first()
    if known:
        return known, False
    dataset = _dataset_of(vector, owner)
    return vector_keep(owner=owner, name=name, summary=summary_of(vector), dataset=dataset), True


def stored(data: bytes) -> SteeringVector:
    """Keep a file on the model side. Raises InferenceError for one that is no steering vector, or is damaged."""
    return gateway.call(gateway.inference().put_vector(data), timeout=60)


@transaction.atomic
def starter_keep(*, slug: str, vector: SteeringVector, dataset: Dataset | None, evaluation: dict[str, Any]) -> Vector:
    """Add or renew the starter of a slug for the vector's model; nothing changes when content and evaluation are the
    same. Its recommended point is the one that was measured, where one was."""
    here: dict[str, Any] = {"owner": None, "slug": slug, "model_id": vector.model}
    known = Vector.objects.select_for_update().filter(**here).first()
    if known and known.content_id == vector.id and known.evaluation == evaluation and known.dataset == dataset:
        return known
    values = {
        "name": dataset.name if dataset else slug.replace("-", " "),
        "description": dataset.description if dataset else "",
        "content_id": vector.id,
        "revision": vector.revision,
        "method": vector.method,
        "summary": summary_of(vector) | recommended(evaluation),
        "evaluation": evaluation,
        "dataset": dataset,
        "dataset_version": dataset.version if dataset else 0,
    }
    return Vector.objects.update_or_create(**here, defaults=values)[0]


def visible(user: Any, pk: UUID) -> Vector:
    """A vector that `user` may open and download. Raises Http404 alike where there is none and where it is others'."""
    return get_object_or_404(Vector.objects.visible_to(user).select_related("dataset", "owner"), pk=pk)


def built_with(vector: Vector) -> list[Vector]:
    """All vectors of the build that found several at once, this one among them; empty for one built alone."""
    job = vector.summary.get("built_by")
    if not job or vector.owner_id is None:
        return []
    return list(Vector.objects.filter(owner=vector.owner_id, summary__built_by=job).order_by("created_at", "name"))


def vector_delete(vector: Vector) -> None:
    """Take it out of the library. The stored bytes stay: the same content may be in another, or in a saved run.

    Raises InvalidRequest("vector_in_use") while a behavior or a preset uses it.
    """
    try:
        vector.delete()
    except RestrictedError as error:
        users = sorted({str(user) for user in users_of(vector)}) or [str(o) for o in error.restricted_objects]
        raise InvalidRequest(
            "vector_in_use",
            f"“{vector.name}” is used by {', '.join(users)}, which would stop working. Delete that first.",
        ) from None


def users_of(vector: Vector) -> list[Any]:
    """The behaviors and presets that would not work without it."""
    return [*vector.behaviors.all(), *vector.presets.all()]  # of apps further right


def _dataset_of(vector: SteeringVector, owner: Any) -> Dataset | None:
    """The dataset the file says it was built from, if its owner still has it in exactly that form."""
    if not vector.dataset_digest:
        return None
    visible = Dataset.objects.visible_to(owner)
    return next((dataset for dataset in visible if dataset.digest() == vector.dataset_digest), None)
