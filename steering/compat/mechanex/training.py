"""The job behind `few-shot` and `steering-perceptrons`, and what becomes of its result: a vector of the library."""

from __future__ import annotations

from typing import Any

from inference.layered import STEPS, TrainLayers, check, layered_vector
from inference.types import OptimiseVector
from steering.access.principal import Principal
from steering.datasets.models import Dataset
from steering.jobs.kinds import keeps_results_of, recipe
from steering.jobs.models import Job
from steering.jobs.runner import job_start
from steering.vectors.builds import about, datapoints_of, keep_built_vector, most_tokens

recipe(TrainLayers, layered_vector)
keeps_results_of(TrainLayers.kind)(keep_built_vector)


def train(who: Principal, dataset: Dataset, name: str, request: TrainLayers, source: str) -> Job:
    """Raises InvalidRequest for what cannot be asked, Denied for a limit."""
    check(request)
    return job_start(
        owner=who.user,
        kind=request.kind,
        title=f"Train “{name}”",
        request=request,
        about=about(dataset, name),
        who=who,
        source=source,
        tokens=most_read(request),
    )


def most_read(request: TrainLayers) -> int:
    """What it may read at most: the training of each layer, and every pair twice to see what came of it."""
    steps: dict[str, Any] = {"steps": request.steps or STEPS[request.method]}
    layer = OptimiseVector("", datapoints_of(request.pairs, "promotion"), 0, **steps)
    return int(most_tokens(layer) * (1 + 4 / steps["steps"])) * len(request.layers)
