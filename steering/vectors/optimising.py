"""Finding a vector by gradient descent: start the job, and keep what it yields, with its loss curve."""

from __future__ import annotations

from typing import Any

from inference.types import OPTIMISE_STEPS, Datapoint, OptimiseVector
from steering.access.estimate import tokens_in
from steering.access.principal import Principal
from steering.datasets.models import Dataset
from steering.jobs.kinds import keeps_results_of
from steering.jobs.models import Job
from steering.jobs.runner import job_start
from steering.vectors.facts import without_values
from steering.vectors.library import vector_keep

KIND = "optimise_vector"


def vector_optimise(
    *,
    owner: Any,
    name: str,
    datapoints: tuple[Datapoint, ...] = (),
    dataset: Dataset | None = None,
    who: Principal | None = None,
    source: str = "vectors",
    **settings: Any,
) -> Job:
    """Start optimising for `datapoints`, or for a dataset's pairs. `settings` are those of OptimiseVector.

    The loss curve so far is in `job.facts["curve"]`; the vector's `provenance["curve"]` keeps it. Raises Denied for a
    limit, or a model that the key of `who` may not use.
    """
    if dataset is not None:
        datapoints = datapoints_of(dataset, settings.get("method", "promotion"))
        settings["dataset_digest"] = dataset.digest()
    request = OptimiseVector(id="", datapoints=datapoints, **settings)
    about = {
        "name": name,
        "dataset": str(dataset.pk) if dataset else None,
        "dataset_name": dataset.name if dataset else "",
        "dataset_version": dataset.version if dataset else 0,
    }
    return job_start(
        owner=owner,
        kind=KIND,
        title=f"Optimise “{name}”",
        request=request,
        about=about,
        who=who,
        source=source,
        tokens=most_tokens(request),
    )


def datapoints_of(dataset: Dataset, method: str) -> tuple[Datapoint, ...]:
    """Pairs as datapoints: the positive side is promoted, the negative one suppressed; MELBO takes the prompts."""
    if method == "melbo":
        return tuple(Datapoint(pair.prompt or pair.positive) for pair in dataset.pairs())
    return tuple(Datapoint(pair.prompt, (pair.positive,), (pair.negative,)) for pair in dataset.pairs())


def most_tokens(request: OptimiseVector) -> int:
    """What an optimisation may read at most: every text once per step and seed, and a look at the end."""
    texts = [p.prompt + side for p in request.datapoints for side in (*p.promote, *p.suppress) or ("",)]
    steps = request.steps or OPTIMISE_STEPS[request.method]
    bounded = (request.kl_steps or steps) if request.kl_texts else 0
    looks = 2 if request.noise or request.batch else 1
    sides = 2 if request.method == "bipo" else 1
    each = tokens_in(texts) * sides * looks * (steps + bounded + 2) + tokens_in(request.kl_texts) * (bounded + 2)
    return each * request.seeds * request.count


@keeps_results_of(KIND)
def keep_optimised_vectors(job: Job, payload: dict[str, Any]) -> None:
    """Add what was found to its owner's library; the job leads to the first."""
    assert job.owner  # jobs of this kind belong to people
    asked = job.request
    dataset = Dataset.objects.visible_to(job.owner).filter(pk=asked["dataset"]).first() if asked["dataset"] else None
    summaries = payload["vectors"] if "vectors" in payload else [payload["vector"]]
    kept = [
        vector_keep(
            owner=job.owner,
            name=asked["name"] if len(summaries) == 1 else f"{asked['name'][:110]} {number}",
            summary=without_values(summary),
            dataset=dataset,
            dataset_version=asked["dataset_version"],
        )
        for number, summary in enumerate(summaries, 1)
    ]
    job.used_tokens = max(summary.get("provenance", {}).get("tokens", 0) for summary in summaries)
    job.result_url = kept[0].get_absolute_url()
