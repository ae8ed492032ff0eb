"""Objects of repeng and steering-vectors, to and from. Neither is needed by anything else; they load when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from inference.errors import InvalidRequest
from inference.interchange.formats import FORMATS
from inference.interchange.loose import Loose, checked
from inference.types import SteeringVector


def to_repeng(vector: SteeringVector, layers: Sequence[int] = (), *, model_type: str = "unknown") -> Any:
    """A `repeng.ControlVector`: directions[L] is resid_post of layer L, as here. `layers` empty is all.

    Raises InvalidRequest("package_missing").
    """
    try:
        from repeng import ControlVector
    except (ImportError, AttributeError) as error:  # repeng 0.4.0 names np.float_, which numpy 2 has not
        raise InvalidRequest(
            "package_missing",
            f"repeng cannot be imported here ({error}). It needs numpy below 2: write GGUF instead, and read that where"
            " repeng is, with ControlVector.import_gguf.",
        ) from error
    return ControlVector(model_type, {layer: vector.at(layer).values.copy() for layer in _layers(vector, layers)})


def from_repeng(control: Any) -> Loose:
    """Directions of a `repeng.ControlVector`. Raises InvalidRequest as a file would."""
    pairs = [(_whole(layer), values) for layer, values in control.directions.items()]
    directions, notes = checked(pairs, "The ControlVector")
    return Loose("repeng", directions, FORMATS["repeng"].site, str(control.model_type)[:200], notes, {})


def to_steering_vectors(vector: SteeringVector, layers: Sequence[int] = ()) -> Any:
    """A `steering_vectors.SteeringVector` of decoder blocks. `apply` adds all its layers at once; `layers` empty is the
    recommended one alone. Raises InvalidRequest("package_missing").
    """
    try:
        import steering_vectors
    except ImportError as error:
        raise InvalidRequest(
            "package_missing", "steering-vectors is not installed. Run: pip install steering-vectors"
        ) from error
    import torch

    chosen = _layers(vector, layers or (vector.recommended_layer,))
    return steering_vectors.SteeringVector(
        {layer: torch.from_numpy(vector.at(layer).values.copy()) for layer in chosen}, "decoder_block"
    )


def from_steering_vectors(other: Any) -> Loose:
    """Directions of a `steering_vectors.SteeringVector`. Raises InvalidRequest("other_site")."""
    if other.layer_type != "decoder_block":
        raise InvalidRequest(
            "other_site",
            f"This vector belongs to {other.layer_type!r:.40}, not to the residual stream. Train it with layer_type "
            "'decoder_block'.",
        )
    pairs = [(_whole(n), t.detach().double().cpu().numpy()) for n, t in other.layer_activations.items()]
    directions, notes = checked(pairs, "The SteeringVector")
    return Loose("steering_vectors", directions, FORMATS["steering_vectors"].site, "", notes, {})


def _whole(layer: Any) -> int:
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer) or layer < 0:
        raise InvalidRequest("bad_layer", f"{layer!r:.40} is no layer. Layers are whole numbers from 0.")
    return int(layer)


def _layers(vector: SteeringVector, layers: Sequence[int]) -> list[int]:
    return list(layers) or [d.site.layer for d in vector.directions]
