"""A new vector from those in the library: check the terms, start the job, keep what it yields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from inference.errors import InvalidRequest
from inference.types import CombineVectors, VectorTerm
from steering.access.principal import Principal
from steering.jobs.kinds import keeps_results_of
from steering.jobs.models import Job
from steering.jobs.runner import job_start
from steering.naming import id_in
from steering.refusals import need, storable
from steering.vectors.facts import without_values
from steering.vectors.library import vector_keep
from steering.vectors.models import Vector

KIND = "combine_vectors"
OPERATIONS: tuple[str, ...] = get_args(get_type_hints(CombineVectors)["operation"])
WORDS = {
    "sum": "Sum: weight × vector, added up",
    "difference": "Difference: the first minus the others",
    "average": "Average: of the directions, whatever their lengths",
    "project_out": "Project out: the first without what it shares with the others",
    "rescale": "Rescale: one vector times its weight",
}
MOST, MAX_WEIGHT, MAX_NAME = 8, 1000.0, 120


@dataclass(frozen=True)
class Combination:
    """What is to be made. `terms` are library entries with their weights, in order."""

    name: str
    operation: str
    terms: tuple[tuple[Vector, float], ...]


def check(combination: Combination) -> None:
    """What needs no model side. Raises InvalidRequest whose code is the field's name."""
    operation, terms = combination.operation, combination.terms
    need(bool(combination.name.strip()), "name", "Give the new vector a name.")
    need(len(combination.name) <= MAX_NAME, "name", f"A name has at most {MAX_NAME} characters.")
    storable(combination.name, "The name")
    need(operation in OPERATIONS, "operation", f"Choose one of {', '.join(OPERATIONS)}.")
    if operation == "rescale":
        need(len(terms) == 1, "vectors", "Rescale takes exactly one vector. Choose one, or another operation.")
    else:
        need(2 <= len(terms) <= MOST, "vectors", f"Choose 2 to {MOST} vectors; to stretch one alone, rescale it.")
    weights = [weight for _, weight in terms]
    need(
        all(0 < abs(weight) <= MAX_WEIGHT for weight in weights),
        "weights",
        f"A weight is a number up to {MAX_WEIGHT:g} in size, and not 0. Leave out a vector that is not to count.",
    )
    need(
        operation != "average" or min(weights) > 0,
        "weights",
        "An average takes weights above 0. Use a difference to subtract.",
    )
    need(
        operation != "project_out" or all(weight == 1 for weight in weights[1:]),
        "weights",
        "What is projected out has no weight: its direction alone counts. Leave those weights at 1.",
    )
    refuse_mixed([vector for vector, _ in terms])


def refuse_mixed(vectors: Sequence[Vector]) -> None:
    """Raises InvalidRequest("vectors") for vectors of two models or revisions."""
    first = vectors[0]
    for other in vectors[1:]:
        need(
            (other.model_id, other.revision) == (first.model_id, first.revision),
            "vectors",
            f"“{first.name}” was made on {first.model_id} and “{other.name}” on {other.model_id}"
            + (", in another revision" if other.model_id == first.model_id else "")
            + ". Directions of different models cannot be set beside each other: choose vectors of one.",
        )


def read(user: Any, form: Mapping[str, Any], ids: Sequence[str], weights: Sequence[str]) -> Combination:
    """From a form's fields, where an empty weight is 1. Raises InvalidRequest."""
    need(len(ids) == len(weights), "weights", "Each vector needs a weight. Reload the page.")
    pairs = [(id, weight) for id, weight in zip(ids, weights, strict=True) if id]
    found = visible(user, [id for id, _ in pairs])
    terms = tuple((found[id], _number(weight)) for id, weight in pairs)
    return Combination(str(form.get("name", "")).strip(), str(form.get("operation", "")), terms)


def visible(user: Any, ids: Sequence[str]) -> dict[str, Vector]:
    """The vectors of the library by the ids as given. Raises InvalidRequest("vectors") for one that is not there."""
    found: dict[str, Vector] = {}
    for id in ids:
        vector = Vector.objects.visible_to(user).filter(pk=id_in(id)).first()
        if vector is None:
            raise InvalidRequest("vectors", "A vector is not in your library: it was deleted, or it is not yours.")
        found[id] = vector
    return found


def _number(text: str) -> float:
    try:
        return float(text.strip().replace("\N{MINUS SIGN}", "-") or 1)
    except ValueError:
        raise InvalidRequest("weights", f"“{text[:20]}” is not a number. Write a weight such as 0.5.") from None


def combine_start(
    *, owner: Any, combination: Combination, model: str, who: Principal | None = None, source: str = "vectors"
) -> Job:
    """Start the job. Raises InvalidRequest, or Denied for a limit or a model that the key of `who` may not use."""
    check(combination)
    terms = tuple(VectorTerm(vector.content_id, weight, vector.name) for vector, weight in combination.terms)
    request = CombineVectors("", terms, combination.operation, model)  # type: ignore[arg-type]
    about = {"name": combination.name, "vectors": [str(vector.pk) for vector, _ in combination.terms]}
    title = f"Combine “{combination.name}”"
    return job_start(owner=owner, kind=KIND, title=title, request=request, about=about, who=who, source=source)


@keeps_results_of(KIND)
def keep_combination(job: Job, payload: dict[str, Any]) -> None:
    assert job.owner  # combinations belong to people
    said = payload["vector"].get("provenance", {})
    vector = vector_keep(
        owner=job.owner,
        name=job.request["name"],
        description=in_words(said),
        summary=without_values(payload["vector"]),
    )
    job.result_url = vector.get_absolute_url()


def in_words(provenance: Mapping[str, Any]) -> str:
    """`difference of 1 × “calm”, 0.5 × “angry”`, from a combination's provenance; "" of any other."""
    terms = provenance.get("terms") or []
    named = ", ".join(f"{term['weight']:g} × “{term['name']}”" for term in terms)
    operation = str(provenance.get("operation", "")).replace("_", " ")
    return f"{operation} of {named}"[:2000] if terms else ""
