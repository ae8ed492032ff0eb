"""What the vLLM engine does not do, by name, and what does it instead."""

from __future__ import annotations

from collections.abc import Iterator

from inference.errors import InvalidRequest
from inference.types import (
    CheckPairs,
    CombineVectors,
    CompareVectors,
    CreateVector,
    Divergence,
    Forecast,
    GenerationRequest,
    ImportVector,
    JobRequest,
    OptimiseVector,
    Score,
    Tokenize,
)

JOBS = (
    CreateVector,
    CheckPairs,
    ImportVector,
    CombineVectors,
    CompareVectors,
    Forecast,
    Score,
    Divergence,
    OptimiseVector,
    Tokenize,
)
CURE = "Use a model that the built-in engine serves, or leave it out."


def check_request(request: GenerationRequest) -> None:
    """Raises InvalidRequest("not_on_vllm") for the first thing that is asked of another engine."""
    for name in _beyond(request):
        raise InvalidRequest("not_on_vllm", f"The vLLM engine has no {name}. {CURE}")


def _beyond(request: GenerationRequest) -> Iterator[str]:
    if request.watches:
        yield "watches (nor the behaviors that are made of them)"
    if any(i.feature is not None for i in request.interventions):
        yield "steering of features"
    if request.draft is not None:
        yield "drafts"
    if request.ensemble is not None:
        yield "ensembles"
    if request.sampling.beam_width > 1:
        yield "beam search"


def check_job(job: JobRequest) -> None:
    """Raises InvalidRequest("not_on_vllm")."""
    if not isinstance(job, JOBS):
        about = job.kind.replace("_", " ")
        raise InvalidRequest("not_on_vllm", f"The vLLM engine does not do jobs of the kind {about!r}. {CURE}")
