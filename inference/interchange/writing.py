"""From one of our vectors to the file of another program, with its layers numbered its way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inference.errors import InvalidRequest
from inference.interchange import gguf_file, strict, tensors
from inference.interchange.formats import FORMATS, Format, says_where
from inference.interchange.reading import OURS
from inference.types import Direction, Site, SteeringVector


@dataclass(frozen=True)
class Written:
    """A file, and the sentences that say where its layers are."""

    format: Format
    data: bytes
    layers: dict[int, int]  # ours to the file's
    notes: tuple[str, ...]


def directions_of(data: bytes) -> SteeringVector:
    """A vector from the bytes that `inference.store` keeps, without its maps, which other programs do not know.

    Its digest was checked when it was stored.
    """
    metadata, arrays = tensors.read(data)
    facts = strict.parse(metadata.get(OURS, "").encode(), "The vector's metadata")
    layers = {int(name.removeprefix("layer.")): v for name, v in arrays.items() if name.startswith("layer.")}
    found = tuple(Direction(Site(layer), layers[layer].astype(np.float32)) for layer in sorted(layers))
    return SteeringVector.from_wire({**facts, "directions": found})


def write(
    vector: SteeringVector, format: str, layers: Sequence[int] | None = None, *, hint: str = "", n_layers: int = 0
) -> Written:
    """`layers` are ours: None is the recommended one alone, since other programs add every layer of a file at once.

    Empty is all that the format can say. `hint` is the architecture's name (`llama`), `n_layers` the model's, where
    they are known. Numbers are kept exactly. Raises InvalidRequest("unknown_format", "layer_not_in_vector" or
    "layer_not_in_format").
    """
    kind = FORMATS.get(format)
    if kind is None or not kind.writes or format == "safetensors":
        known = ", ".join(k for k, f in FORMATS.items() if f.writes and k != "safetensors")
        raise InvalidRequest("unknown_format", f"There is no format {format!r:.40} to write. Use one of {known}.")
    if getattr(vector, "maps", ()):
        raise InvalidRequest(
            "not_a_direction",
            "This vector holds an affine map, which no other program's file can say. Export it as safetensors.",
        )
    shift = 0 if kind.site == "resid_post" else 1
    has = [d.site.layer for d in vector.directions]
    wanted = [vector.recommended_layer] if layers is None else list(layers) or has
    left_out = [layer for layer in wanted if not _sayable(kind, layer + shift, n_layers)]
    if left_out and (layers or layers is None or len(left_out) == len(wanted)):
        raise _unsayable(kind, left_out[0])
    chosen = {layer: vector.at(layer).values for layer in wanted if layer not in left_out}
    numbered = {layer: layer + shift for layer in chosen}
    notes = tuple(says_where(theirs, ours) for ours, theirs in numbered.items())
    if left_out:
        notes += (f"Layer {', '.join(map(str, left_out))} cannot be said in this format and is left out.",)
    data = _WRITERS[format](vector, {numbered[k]: v for k, v in chosen.items()}, hint)
    return Written(kind, data, numbered, notes)


def _sayable(kind: Format, theirs: int, n_layers: int) -> bool:
    return theirs >= kind.first_layer and (not n_layers or theirs < n_layers)


def _unsayable(kind: Format, layer: int) -> InvalidRequest:
    why = (
        f"{kind.programs} adds nothing at layer 0"
        if layer < kind.first_layer and kind.site == "resid_post"
        else f"{kind.programs} adds at the input of a block, and none follows layer {layer}"
    )
    return InvalidRequest(
        "layer_not_in_format",
        f"Layer {layer} cannot be said in a {kind.title} file: {why}. Export another layer, or as safetensors.",
    )


def _gguf(vector: SteeringVector, directions: dict[int, np.ndarray], hint: str) -> bytes:
    facts: dict[str, str | int] = {
        "general.architecture": "controlvector",
        "controlvector.model_hint": hint or "unknown",
        "controlvector.layer_count": len(directions),
        "general.description": FORMATS["gguf"].convention,
        "steerboard.id": vector.id,
        "steerboard.model": vector.model,
        "steerboard.revision": vector.revision,
        "steerboard.method": vector.method,
    }
    return gguf_file.write(facts, {f"direction.{layer}": values for layer, values in sorted(directions.items())})


def _mechanex(vector: SteeringVector, directions: dict[int, np.ndarray], hint: str) -> bytes:
    return json.dumps({str(layer): _floats(values) for layer, values in sorted(directions.items())}).encode()


def _svec(vector: SteeringVector, directions: dict[int, np.ndarray], hint: str) -> bytes:
    rows = {str(layer): _floats(values) for layer, values in sorted(directions.items())}
    # activation-steering wants a figure per layer; none was measured, and it has none for other methods than PCA either
    return json.dumps({"model_type": hint or "unknown", "directions": rows, "explained_variances": {}}).encode()


def _floats(values: np.ndarray) -> list[float]:
    return [float(v) for v in values]  # every float32 is a float64, and JSON keeps those exactly


_WRITERS = {"gguf": _gguf, "mechanex": _mechanex, "svec": _svec}
