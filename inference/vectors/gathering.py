"""Stored vectors that are to be set beside each other: found, checked to speak of the same model, brought to the same
layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from inference.errors import InvalidRequest
from inference.types import SteeringVector

Find = Callable[[str], SteeringVector]
MOST = 8


def gather(find: Find, ids: Sequence[str], *, model: str, revision: str) -> list[SteeringVector]:
    """The vectors in the order given. Raises NotFound, or InvalidRequest with a sentence."""
    found = [find(id) for id in ids]
    for vector in found:
        if (vector.model, vector.revision) != (model, revision):
            raise InvalidRequest(
                "vector_model_mismatch",
                f"The vector {vector.id[:12]} was made on {vector.model} (revision {vector.revision}); {model} "
                f"(revision {revision}) is served here. Directions of different models cannot be set "
                "beside each other: choose vectors of one model, or build this one again.",
            )
        if getattr(vector, "maps", ()):
            raise InvalidRequest(
                "vector_is_a_map",
                f"The vector {vector.id[:12]} acts as an affine map and not as a direction. Choose vectors that are "
                "directions.",
            )
    return found


def check_count(count: int, least: int, most: int = MOST) -> None:
    """Raises InvalidRequest("vector_count")."""
    if not least <= count <= most:
        wanted = "one vector" if most == 1 else f"{least} to {most} vectors"
        raise InvalidRequest("vector_count", f"This takes {wanted}, not {count}. Choose again.")


def layers_of(vector: SteeringVector) -> list[int]:
    return sorted(d.site.layer for d in vector.directions if d.site.point == "resid_post")


def common_layers(vectors: Sequence[SteeringVector]) -> tuple[int, ...]:
    """Layers that all vectors have. Raises InvalidRequest("no_common_layer")."""
    common = set(layers_of(vectors[0])).intersection(*(layers_of(vector) for vector in vectors[1:]))
    if not common:
        listed = "; ".join(f"{v.id[:12]}: {', '.join(map(str, layers_of(v)))}" for v in vectors)
        raise InvalidRequest(
            "no_common_layer",
            f"These vectors have no layer in common ({listed}). Build one of them again at the other's layers.",
        )
    return tuple(sorted(common))


def dropped_layers(vectors: Sequence[SteeringVector], common: Sequence[int]) -> dict[str, list[int]]:
    """What is left out, by vector; only those of which something is."""
    dropped = {v.id: [layer for layer in layers_of(v) if layer not in common] for v in vectors}
    return {id: layers for id, layers in dropped.items() if layers}


def at_layer(vectors: Sequence[SteeringVector], layer: int) -> np.ndarray:
    """float64[n, d_model]"""
    return np.stack([v.at(layer).values for v in vectors]).astype(np.float64)
