"""Vectors beside each other: start the job, find it again, and put what it found into a page's words.

A comparison is named by the content of its vectors, so a link finds it again. Whose library it looked through is its
owner's affair: names of neighbours are looked up anew each time, among what the person who looks may see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inference.types import CompareVectors
from steering.access.principal import Principal
from steering.jobs.models import Job
from steering.jobs.runner import job_start
from steering.refusals import need
from steering.vectors.combining import refuse_mixed
from steering.vectors.models import Vector

KIND = "compare_vectors"
LEAST, MOST = 2, 8
MAX_LIBRARY = 100  # each is sent to the worker where the two share no disk


def check(vectors: Sequence[Vector]) -> None:
    """Raises InvalidRequest("vectors")."""
    need(LEAST <= len(vectors) <= MOST, "vectors", f"Choose {LEAST} to {MOST} vectors to compare.")
    refuse_mixed(vectors)
    contents = {vector.content_id: vector for vector in vectors}
    for vector in vectors:
        twin = contents[vector.content_id]
        need(twin is vector, "vectors", f"“{vector.name}” and “{twin.name}” are the same vector. Leave one out.")


def key_of(vectors: Sequence[Vector]) -> str:
    return " ".join(sorted(vector.content_id for vector in vectors))


def comparison_start(
    *, owner: Any, vectors: Sequence[Vector], model: str, who: Principal | None = None, source: str = "vectors"
) -> Job:
    """Start the job. Raises InvalidRequest, or Denied."""
    check(vectors)
    compared = tuple(vector.content_id for vector in vectors)
    near = Vector.objects.visible_to(owner).filter(model_id=vectors[0].model_id, revision=vectors[0].revision)
    ids = near.exclude(content_id__in=compared).in_library_order().values_list("content_id", flat=True)
    library = tuple(dict.fromkeys(ids))[:MAX_LIBRARY]
    request = CompareVectors("", compared, library, model=model)
    about = {"key": key_of(vectors), "vectors": [str(vector.pk) for vector in vectors]}
    title = f"Compare {', '.join(f'“{vector.name}”' for vector in vectors)}"
    return job_start(owner=owner, kind=KIND, title=title, request=request, about=about, who=who, source=source)


def comparison_of(owner: Any, vectors: Sequence[Vector]) -> Job | None:
    """The newest comparison of these vectors that the person asked for; one that succeeded before any other."""
    jobs = Job.objects.owned_by(owner).filter(kind=KIND, request__key=key_of(vectors))
    return jobs.filter(state=Job.State.SUCCEEDED).first() or jobs.first()


def found_by(job: Job, user: Any, vectors: Sequence[Vector]) -> dict[str, Any]:
    """What a comparison found, in the order of `vectors`, with the names that `user` may know."""
    result = job.result
    place = {row["id"]: index for index, row in enumerate(result["compared"])}
    order = [place[vector.content_id] for vector in vectors]
    rows = [result["compared"][index] for index in order]
    known = _known(result["library"], user)
    near = [
        [[known[lib] | {"cosine": cosine} for i, cosine in layer[index] if (lib := result["library"][i]) in known]
         for index in order]
        for layer in result["nearest"]
    ]  # fmt: skip
    return {
        "model": result["model"],
        "layers": result["layers"],
        "dropped": [{"name": v.name, "layers": result["dropped"].get(v.content_id, [])} for v in vectors],
        "vectors": [{"id": str(v.pk), "name": v.name, "url": v.get_absolute_url()} for v in vectors],
        "norms": [row["norms"] for row in rows],
        "residual_norms": [row["residual_norms"] for row in rows],
        "cosines": [[[layer[i][j] for j in order] for i in order] for layer in result["cosines"]],
        "maps": [{**m, "points": [m["points"][i] for i in order]} for m in result["maps"]],
        "tokens": [[layer[i] for i in order] for layer in result["tokens"]],
        "nearest": near,
        "missing": result["missing"],
        "searched": len(result["library"]) - result["missing"],
    }


def _known(content_ids: Sequence[str], user: Any) -> dict[str, dict[str, str]]:
    """By content id, the vectors among them that `user` sees; one's own name before a starter's."""
    seen = Vector.objects.visible_to(user).filter(content_id__in=list(content_ids)).in_library_order()
    known = {v.content_id: {"id": str(v.pk), "name": v.name, "url": v.get_absolute_url()} for v in reversed(seen)}
    return known


def layer_of(vectors: Sequence[Vector], layers: Sequence[int], wanted: str) -> int:
    """The layer to show first: the one asked for, else the first vector's recommended, else the nearest to it."""
    asked = int(wanted) if wanted.isdecimal() and len(wanted) < 6 else vectors[0].facts.layer
    return min(layers, key=lambda layer: (abs(layer - asked), layer))
