"""Building a vector from a dataset: start the job, and keep what it yields."""

from __future__ import annotations

from typing import Any

from inference.types import CreateVector
from steering.access.estimate import tokens_in
from steering.access.principal import Principal
from steering.datasets.models import Dataset
from steering.jobs.kinds import keeps_results_of
from steering.jobs.models import Job
from steering.jobs.runner import job_start
from steering.vectors.facts import without_values
from steering.vectors.library import vector_keep

KIND = "create_vector"


def vector_build(
    *,
    owner: Any,
    dataset: Dataset,
    name: str,
    who: Principal | None = None,
    source: str = "vectors",
    **settings: Any,
) -> Job:
    """Start building. `settings` are CreateVector's method, pooling, span, chat, layers and model.

    Raises Denied for a limit, or a model that the key of `who` may not use.
    """
    request = CreateVector(id="", pairs=dataset.pairs(), dataset_digest=dataset.digest(), **settings)
    about = {
        "name": name,
        "dataset": str(dataset.pk),
        "dataset_name": dataset.name,
        "dataset_version": dataset.version,
    }
    tokens = sum(tokens_in((pair.prompt + pair.positive, pair.prompt + pair.negative)) for pair in request.pairs)
    return job_start(
        owner=owner,
        kind=KIND,
        title=f"Build “{name}”",
        request=request,
        about=about,
        who=who,
        source=source,
        tokens=tokens,
    )


@keeps_results_of(KIND)
def keep_built_vector(job: Job, payload: dict[str, Any]) -> None:
    """Add the finished vector to its owner's library, and let the job lead there."""
    assert job.owner  # builds belong to people
    dataset = Dataset.objects.visible_to(job.owner).filter(pk=job.request["dataset"]).first()
    vector = vector_keep(
        owner=job.owner,
        name=job.request["name"],
        description=dataset.description if dataset else "",
        summary=without_values(payload["vector"]),
        dataset=dataset,
        dataset_version=job.request["dataset_version"],
    )
    job.used_tokens = payload["vector"].get("provenance", {}).get("tokens", 0)
    job.result_url = vector.get_absolute_url()


def build_settings(job: Job) -> dict[str, str]:
    """The settings of an earlier build, as the build page's query, to change and try again."""
    request = job.request
    return {
        "dataset": request["dataset"],
        "name": request["name"],
        "method": request["method"],
        "pooling": request["pooling"],
        "span": request["span"],
        "chat": "on" if request["chat"] else "",
        "layers": ", ".join(map(str, request["layers"])),
        "model": request.get("model", ""),
    }
