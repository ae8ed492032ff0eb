"""The kinds of job that look for causes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from inference.attribution.attribute import attribute
from inference.attribution.direct import direct_logits
from inference.attribution.exact import patch_exactly
from inference.attribution.lens import logit_lens
from inference.attribution.model_map import map_model
from inference.types import Attribute, DirectLogits, LogitLens, MapModel, PatchExactly

JOBS: dict[type, Callable[[Any, Any], Iterator[Any]]] = {
    Attribute: attribute,
    PatchExactly: patch_exactly,
    LogitLens: logit_lens,
    DirectLogits: direct_logits,
    MapModel: map_model,
}
