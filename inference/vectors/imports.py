"""The job that makes a vector of directions from elsewhere: checked against the model, their norms measured on it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inference.errors import InvalidRequest
from inference.store import dump, seal, summary
from inference.types import Direction, ImportVector, Progress, Result, Site, SteeringVector
from inference.vectors.pooling import SINK_FACTOR

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

METHOD = "imported"
TEXTS = (  # of no particular mood; a few hundred tokens are enough for a stable median
    "The bridge was closed for repairs in spring, so the bus took the longer road along the river.",
    "Add two cups of flour, a pinch of salt and enough water to make a soft dough.",
    "In 1887 the town had three mills, one school and a railway station that nobody used.",
    "The committee will meet on Tuesday to go through the report and the open questions.",
    "Water expands when it freezes, which is why pipes burst in cold winters.",
    "She put the keys on the table, opened the window and looked at the street below.",
    "def mean(values):\n    return sum(values) / len(values)",
    "The library opens at nine; books can be returned at any time in the box beside the door.",
    "Prices rose by two percent in the third quarter, mostly because of transport.",
    "Maps of the coast were drawn by hand until the first photographs were taken from the air.",
    "To change the filter, turn off the machine, lift the lid and pull the handle towards you.",
    "Many birds leave in autumn and come back in April, when there is more to eat.",
)


def import_vector(model: LoadedModel, job: ImportVector) -> Iterator[Progress | Result]:
    """Progress counts texts. Raises InvalidRequest saying what does not fit the model."""
    directions = _directions(model, job)
    seq = count()
    norms: list[np.ndarray] = []
    for done, text in enumerate(TEXTS):
        yield Progress(job.id, next(seq), done, len(TEXTS), "Measuring the size of an ordinary token")
        norms.append(_norms(model, text))
    usual = _usual(np.concatenate(norms, axis=1))
    vector = _assemble(model, job, directions, {d.site.layer: float(usual[d.site.layer]) for d in directions})
    yield Result(job.id, next(seq), {"vector": summary(vector), "data": dump(vector)})


def _directions(model: LoadedModel, job: ImportVector) -> tuple[Direction, ...]:
    try:
        numbers = np.frombuffer(base64.b64decode(job.values, validate=True), "<f4")
    except (binascii.Error, ValueError):
        raise InvalidRequest("bad_values", "`values` is not base64 of float32 numbers. Encode it again.") from None
    outside = [layer for layer in job.layers if not 0 <= layer < model.n_layers]
    if outside:
        raise InvalidRequest(
            "layer_out_of_range",
            f"The file has layer {outside[0]}, counted our way, and {model.id} has layers 0 to {model.n_layers - 1}. "
            "It was made for a deeper model, or counts its layers from 1: then import it as resid_pre.",
        )
    if not job.layers or len(set(job.layers)) < len(job.layers) or job.recommended_layer not in job.layers:
        raise InvalidRequest("bad_layer", "Each layer must come once, the recommended one among them.")
    if numbers.size != len(job.layers) * model.d_model:
        raise InvalidRequest(
            "wrong_size",
            f"The directions are {numbers.size / len(job.layers):g} wide and {model.id} is {model.d_model} wide. "
            "A direction means nothing in another model: choose the one it was made on.",
        )
    rows = numbers.reshape(len(job.layers), model.d_model)
    if not np.isfinite(rows).all() or not rows.any(axis=1).all():
        raise InvalidRequest("bad_direction", "A direction is zero or not finite. Write the file again.")
    pairs = sorted(zip(job.layers, rows, strict=True), key=lambda pair: pair[0])
    return tuple(Direction(Site(layer), values.astype(np.float32)) for layer, values in pairs)


def _norms(model: LoadedModel, text: str) -> np.ndarray:
    """Norms of a text's ordinary tokens, float64[n_layers, tokens]."""
    ids = model.encode_prompt(text)[: model.context_length]
    residuals = model.residuals(torch.tensor([ids]))[:, 0]
    ordinary = [token not in model.special_ids for token in ids]
    return np.asarray(torch.linalg.vector_norm(residuals, dim=-1).double().cpu())[:, ordinary]


def _usual(norms: np.ndarray) -> np.ndarray:
    """The median per layer, attention sinks left out."""
    rough = np.median(norms, axis=1, keepdims=True)
    return np.array([np.median(row[row <= SINK_FACTOR * m]) for row, m in zip(norms, rough, strict=True)])


def _assemble(
    model: LoadedModel, job: ImportVector, directions: tuple[Direction, ...], residual_norms: dict[int, float]
) -> SteeringVector:
    norms = {d.site.layer: float(np.linalg.norm(d.values.astype(np.float64))) for d in directions}
    layer = job.recommended_layer
    reason = f"Layer {layer} was chosen by whoever imported it. Nothing was measured here but the size of tokens."
    provenance: dict[str, Any] = {
        "imported": job.source,
        "raw_strength": job.strength,
        "norms": {str(k): v for k, v in norms.items()},
        "residual_norms_from": f"{len(TEXTS)} neutral texts, special and sink tokens left out",
        "sink_factor": SINK_FACTOR,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    return seal(
        SteeringVector(
            id="",
            model=model.id,
            revision=model.revision,
            directions=directions,
            method=METHOD,
            read_positions="not known: the file does not say",
            residual_norms=residual_norms,
            stats=(),
            recommended_layer=layer,
            recommended_strength=job.strength * norms[layer] / residual_norms[layer],
            reason=reason,
            dataset_digest="",
            n_pairs=0,
            provenance=provenance,
        )
    )
