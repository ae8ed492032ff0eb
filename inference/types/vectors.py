"""What is added to a model, and where: sites, directions, and the vectors that hold them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from inference.errors import InvalidRequest
from inference.wire import Matrix, Wire

Point = Literal["resid_post", "resid_pre"]
MAX_RANK = 16  # of an AffineMap
_TL_SITE = re.compile(r"blocks\.(\d{1,4})\.hook_(resid_post|resid_pre)")


@dataclass(frozen=True)
class Site(Wire):
    """A place in the model. Layers count from 0; `resid_pre` of layer i is `resid_post` of layer i - 1."""

    layer: int
    point: Point = "resid_post"

    @classmethod
    def parse(cls, name: str) -> Site:
        """Read a TransformerLens hook name, such as `blocks.9.hook_resid_post`."""
        match = _TL_SITE.fullmatch(name)
        if not match:
            raise InvalidRequest(
                "unknown_site", f"{name!r} is not a site that can be steered. Use blocks.<layer>.hook_resid_post."
            )
        return cls(int(match[1]), match[2])  # type: ignore[arg-type]

    @property
    def hook_name(self) -> str:
        return f"blocks.{self.layer}.hook_{self.point}"


@dataclass(frozen=True, eq=False)
class Direction(Wire):
    """A direction at one site. `values` is float32[d_model] and keeps the scale it was built with."""

    site: Site
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class AffineMap(Wire):
    """A learnt edit of low rank at one site: h + strength * write.T @ (read @ h + bias)."""

    site: Site
    read: Matrix  # float32[rank, d_model], rank 1 to MAX_RANK
    write: Matrix  # float32[rank, d_model]
    bias: np.ndarray  # float32[rank]

    @property
    def rank(self) -> int:
        return int(self.read.shape[0])


@dataclass(frozen=True)
class LayerStats(Wire):
    """What one layer's direction is worth, measured on pairs that did not help to build it."""

    layer: int
    norm: float  # of the direction, raw
    residual_norm: float  # median over tokens, special and sink tokens left out
    sink_norm: float  # largest single-token norm at this layer
    auc: float  # held out, 0.5 is chance
    d_prime: float  # held out, in pooled standard deviations
    split_half: float  # mean cosine of directions from random halves of the data


@dataclass(frozen=True, eq=False)
class SteeringVector(Wire):
    """Directions for one or more layers of one model, with where they came from. Immutable.

    `id` is the SHA-256 of the content (see `inference.store`). `residual_norms` gives, per layer, the size of one
    relative unit of strength. `recommended_strength` is in relative units. `references` gives, per layer, where the
    negative examples lie along the unit direction (raw), which "affine" counts from; with `maps`, "affine" is the map.
    """

    id: str
    model: str
    revision: str
    directions: tuple[Direction, ...]
    method: str
    read_positions: str
    residual_norms: dict[int, float]
    stats: tuple[LayerStats, ...]
    recommended_layer: int
    recommended_strength: float
    reason: str
    dataset_digest: str
    n_pairs: int
    provenance: dict[str, Any] = field(default_factory=dict)
    references: dict[int, float] = field(default_factory=dict)
    maps: tuple[AffineMap, ...] = ()

    @property
    def d_model(self) -> int:
        return int(self.directions[0].values.shape[0])

    def at(self, layer: int) -> Direction:
        """The direction at `resid_post` of `layer`. Raises InvalidRequest("layer_not_in_vector")."""
        for direction in self.directions:
            if direction.site.layer == layer and direction.site.point == "resid_post":
                return direction
        layers = ", ".join(str(d.site.layer) for d in self.directions)
        raise InvalidRequest(
            "layer_not_in_vector", f"This vector has no direction at layer {layer}. It has layers {layers}."
        )
