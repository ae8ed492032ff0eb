"""Every job, and which vectors and autoencoders a request needs."""

from __future__ import annotations

from typing import get_args

from inference.types.attribution import Attribute, AttributeFeatures, DirectLogits, LogitLens, MapModel, PatchExactly
from inference.types.building import (
    CheckPairs,
    CombineVectors,
    CompareVectors,
    CreateVector,
    Forecast,
    ImportVector,
    OptimiseVector,
)
from inference.types.generation import GenerationRequest
from inference.types.reading import (
    DescribeFeature,
    FitDetector,
    NearestFeatures,
    ReadActivations,
    ReadFeatures,
    ReadProbes,
    ReadVector,
    SearchFeatures,
    Tokenize,
    TrainSae,
)
from inference.types.retrieval import AttributeAnswer, IndexCorpus
from inference.types.scoring import Divergence, Score
from inference.types.steering import Intervention

JobRequest = (
    CreateVector
    | CheckPairs
    | Forecast
    | OptimiseVector
    | CombineVectors
    | CompareVectors
    | ImportVector
    | Score
    | Divergence
    | ReadFeatures
    | DescribeFeature
    | Tokenize
    | ReadActivations
    | ReadVector
    | NearestFeatures
    | SearchFeatures
    | IndexCorpus
    | FitDetector
    | ReadProbes
    | Attribute
    | PatchExactly
    | AttributeFeatures
    | LogitLens
    | DirectLogits
    | MapModel
    | TrainSae
    | AttributeAnswer
)
JOB_REQUESTS: dict[str, type[JobRequest]] = {cls.kind: cls for cls in get_args(JobRequest)}


def named_vectors(request: GenerationRequest | JobRequest) -> list[str]:
    """The ids of stored vectors that a request needs, each once."""
    listed = request.vector_ids if isinstance(request, CombineVectors | CompareVectors) else ()
    return sorted({*listed, *(id for i in _interventions(request) for id in i.vector_ids)})


def named_sources(request: GenerationRequest | JobRequest) -> list[str]:
    """The ids of the autoencoders whose features a request steers, each once."""
    return sorted({i.feature.source for i in _interventions(request) if i.feature is not None})


def _interventions(request: GenerationRequest | JobRequest) -> list[Intervention]:
    found = list(getattr(request, "interventions", ()))
    if isinstance(request, Score):
        found += [i for item in request.items for i in item.interventions]
    if isinstance(request, GenerationRequest):
        found += [i for watch in request.watches for i in watch.interventions]
        found += [i for member in (request.ensemble.members if request.ensemble else ()) for i in member.interventions]
    return found


def spare_vectors(request: GenerationRequest | JobRequest) -> frozenset[str]:
    """The ids of stored vectors that a request would use, and can do without where they are gone."""
    return frozenset(request.library) - {*request.vector_ids} if isinstance(request, CompareVectors) else frozenset()
