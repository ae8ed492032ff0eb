"""The kinds of job that look for causes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from inference.attribution.answers.job import attribute_answer
from inference.attribution.attribute import attribute
from inference.attribution.direct import direct_logits
from inference.attribution.exact import patch_exactly
from inference.attribution.features import attribute_features
from inference.attribution.lens import logit_lens
from inference.attribution.model_map import map_model
from inference.types import (
    Attribute,
    AttributeAnswer,
    AttributeFeatures,
    DirectLogits,
    LogitLens,
    MapModel,
    PatchExactly,
)

JOBS: dict[type, Callable[[Any, Any], Iterator[Any]]] = {
    Attribute: attribute,
    PatchExactly: patch_exactly,
    LogitLens: logit_lens,
    DirectLogits: direct_logits,
    MapModel: map_model,
}
SOURCE_JOBS: dict[type, Callable[[Any, Any, Any], Iterator[Any]]] = {AttributeFeatures: attribute_features}
STEERED_JOBS: dict[type, Callable[[Any, Any, Any], Iterator[Any]]] = {AttributeAnswer: attribute_answer}
