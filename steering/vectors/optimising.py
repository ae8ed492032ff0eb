"""Finding a vector by gradient descent, with every setting there is; what it yields is kept as any build is."""

from __future__ import annotations

from typing import Any

from inference.types import Datapoint, OptimiseVector
from steering.access.principal import Principal
from steering.datasets.models import Dataset
from steering.jobs.models import Job
from steering.jobs.runner import job_start
from steering.vectors.builds import about, datapoints_of, most_tokens


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
        datapoints = datapoints_of(dataset.pairs(), settings.get("method", "promotion"))
        settings["dataset_digest"] = dataset.digest()
    request = OptimiseVector(id="", datapoints=datapoints, **settings)
    return job_start(
        owner=owner,
        kind=request.kind,
        title=f"Optimise “{name}”",
        request=request,
        about=about(dataset, name),
        who=who,
        source=source,
        tokens=most_tokens(request),
    )
