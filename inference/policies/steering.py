"""The steering part of a policy as interventions."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np

from inference.client import Inference
from inference.errors import InvalidRequest
from inference.policies.schema import SteeringPart
from inference.types import Direction, Intervention, Operation, Site, SteeringVector

PRESETS_NEED_A_SERVER = (
    "Steering presets are kept by a Steerboard server. Name a vector_id, or give the directions in vector."
)


def given_directions(part: SteeringPart) -> tuple[Intervention, ...]:
    """Directions that stand in the policy, added raw at `resid_post` of their layers. Raises InvalidRequest."""
    if not part.vector:
        raise InvalidRequest("bad_vector", "steering.vector has no layer. Give a list of numbers by layer.")
    directions = tuple(Direction(_site(key), np.asarray(v, dtype=np.float32)) for key, v in part.vector.items())
    empty = [key for key, values in part.vector.items() if not values]
    if empty:
        raise InvalidRequest("bad_vector", f"steering.vector has no numbers at {empty[0]!r}. Leave the layer out.")
    return (Intervention(strength=part.strength, directions=directions),)


def stored(client: Inference) -> Any:
    """Resolves a `vector_id` among the vectors that the client holds, at the layer that it recommends."""

    async def resolve(part: SteeringPart) -> tuple[Intervention, ...]:
        if part.vector_id is None:
            raise InvalidRequest("preset_unknown", PRESETS_NEED_A_SERVER)
        from inference.store import load

        vector = load(await client.get_vector(part.vector_id))
        layers = part.layer_scope or (vector.recommended_layer,)
        operation, unit = operation_of(vector), part.unit
        return (Intervention(operation, part.strength, unit, vector_id=vector.id, layers=layers),)  # type: ignore[arg-type]

    return resolve


def operation_of(vector: SteeringVector) -> Operation:
    """What the vector was trained for; add, where it was not trained."""
    apply = vector.provenance.get("apply")
    said = apply.get("operation") if isinstance(apply, dict) else None
    if vector.maps or (said == "affine" and vector.recommended_layer in vector.references):
        return "affine"
    return "clamp" if said == "clamp" else "add"


def scoped(interventions: tuple[Intervention, ...], part: SteeringPart) -> tuple[Intervention, ...]:
    """Only the layers and tokens that the part names. Raises InvalidRequest where no direction is left."""
    return tuple(_in_window(_at_layers(i, part.layer_scope), part) for i in interventions)


def described(interventions: tuple[Intervention, ...]) -> tuple[dict[str, Any], ...]:
    """What was asked for, without numbers of directions: each says its site, norm and SHA-256."""
    return tuple({**i.to_wire(), "directions": [_about(d) for d in i.directions]} for i in interventions)


def digest_of(interventions: tuple[Intervention, ...]) -> str:
    """SHA-256 over all that decides what they do; empty for none."""
    if not interventions:
        return ""
    return hashlib.sha256(json.dumps([i.to_wire() for i in interventions], sort_keys=True).encode()).hexdigest()


def _site(key: str) -> Site:
    if "." in key:
        return Site.parse(key)
    if not key.isdecimal() or len(key) > 4:
        raise InvalidRequest(
            "bad_vector", f"steering.vector names {key[:60]!r}. Name a layer, such as 9, or blocks.9.hook_resid_post."
        )
    return Site(int(key))


def _at_layers(i: Intervention, layers: tuple[int, ...]) -> Intervention:
    if not layers:
        return i
    if i.feature is not None:
        raise InvalidRequest(
            "layer_scope_unsupported",
            f"steering.layer_scope cannot be used with the feature {i.feature.source}/{i.feature.index}, which has a "
            "layer of its own. Leave layer_scope out.",
        )
    if i.vector_id is not None:
        return replace(i, layers=layers)
    kept = tuple(d for d in i.directions if d.site.layer in layers)
    if not kept:
        raise InvalidRequest("bad_layer_scope", "steering.layer_scope names no layer of steering.vector. Name one.")
    return replace(i, directions=kept)


def _in_window(i: Intervention, part: SteeringPart) -> Intervention:
    if part.token_start is None and part.token_end is None:
        return i
    return replace(i, positions=replace(i.positions, start=part.token_start, stop=part.token_end))


def _about(direction: Direction) -> dict[str, Any]:
    data = np.ascontiguousarray(direction.values, dtype=np.float32).tobytes()
    norm = float(np.linalg.norm(direction.values))
    return {"site": direction.site.to_wire(), "norm": round(norm, 6), "sha256": hashlib.sha256(data).hexdigest()}
