"""Labels that the model proposes: start the job, and keep what comes as a proposal, never over a person's own word."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from inference.naming import NameFeature, name_feature
from inference.types import FeatureRef, ModelInfo
from steering.access.principal import Principal
from steering.features.labels import label_propose
from steering.jobs.kinds import keeps_results_of, recipe
from steering.jobs.models import Job
from steering.jobs.runner import job_start
from steering.workers.sources import check_feature

KIND = NameFeature.kind
MOST_TOKENS = 1200  # read and written

recipe(NameFeature, name_feature)


def proposal_start(
    *, owner: Any, model: ModelInfo, ref: FeatureRef, who: Principal | None = None, by: str = "features"
) -> Job:
    """Raises InferenceError for a feature that is not there, Denied for a limit."""
    check_feature(model, ref)
    return job_start(
        owner=owner,
        kind=KIND,
        title=f"Propose a label for {ref.source} {ref.index}",
        request=NameFeature("", ref.source, ref.index, model.id),
        about={"model_id": model.id},
        who=who,
        source=by,
        tokens=MOST_TOKENS,
    )


@keeps_results_of(KIND)
def keep_proposal(job: Job, payload: dict[str, Any]) -> None:
    ref = FeatureRef(job.request["source"], job.request["index"])
    job.used_tokens, job.written_tokens = payload["prompt_tokens"], payload["completion_tokens"]
    if job.owner:
        label_propose(job.owner, payload["model"], ref, payload["label"])
    job.result_url = reverse("features:feature", args=[ref.source, ref.index])
