"""A feature of a sparse autoencoder as an edit: its decoder row is added, by how far its latent is from a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inference.conditions import compile_condition
from inference.edits import Edit, check_schedule, set_to
from inference.errors import InvalidRequest, NotFound
from inference.latents import NUMBERS, Latents
from inference.types import Intervention, Site, SteeringVector

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel
    from inference.saes.sae import LatentRows, Sae

OPERATIONS = ("add", "clamp", "floor", "cap", "ablate")


def open_source(id: str, model: LoadedModel) -> Sae:
    """The autoencoder that `id` names. Raises NotFound or InvalidRequest."""
    if model.sources is None:
        raise NotFound("source_not_found", f"There is no source {id}: no autoencoders are loaded beside {model.id}.")
    return model.sources.get(id, model)


def latents_of(sae: Sae, indices: tuple[int, ...]) -> tuple[Latents, LatentRows]:
    """How these latents are read. Raises InvalidRequest("feature_out_of_range" or "source_needs_text")."""
    rows = sae.rows(indices)
    if rows.full is not None or rows.scaling != "none":
        shape = (len(indices), sae.d_in)
        return Latents(indices, np.zeros(shape, np.float32), np.zeros((len(indices), NUMBERS), np.float32), sae), rows
    numbers = torch.stack([rows.gain, rows.bias, rows.cut, torch.zeros_like(rows.gain)], dim=1)
    return Latents(indices, _array(rows.encoder), _array(numbers)), rows


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.float().cpu().numpy())


def compile_feature(source: Intervention, model: LoadedModel, condition_vector: SteeringVector | None) -> list[Edit]:
    """The one edit of an intervention that names a feature. Raises InvalidRequest or NotFound."""
    feature = source.feature
    assert feature is not None
    check_schedule(source)
    _check_operation(source)
    sae = open_source(feature.source, model)
    latents, rows = latents_of(sae, (feature.index,))
    index = _index(sae, rows, source.operation)
    site = Site(index) if index >= 0 else Site(0, "resid_pre")
    row = _array(rows.decoder)[0]
    edit = Edit(index, site, source, sae.residual_norm, _unit(row, model), row)
    if source.operation == "add":
        edit.a = _amount(source, sae)
        if source.unit == "relative":
            edit.write = edit.read
    else:
        edit.latent = latents
        if source.operation == "ablate":
            edit.b = -source.strength
        else:
            set_to(edit, _amount(source, sae))
    if source.condition is not None:
        edit.condition = compile_condition(source, index, condition_vector, model.n_layers, model.d_model)
    return [edit]


def _check_operation(source: Intervention) -> None:
    if source.operation not in OPERATIONS:
        raise InvalidRequest(
            "feature_operation",
            f"{source.operation} is not for features. Use {', '.join(OPERATIONS[:-1])} or {OPERATIONS[-1]}.",
        )
    if source.unit == "relative" and source.operation != "add":
        raise InvalidRequest(
            "bad_unit", "An activation is not counted in residual norms. Use raw or max, or the operation add."
        )


def _index(sae: Sae, rows: LatentRows, operation: str) -> int:
    """The block after which the feature's decoder row is added, -1 being the embedding."""
    if rows.write_layer is not None and (operation == "add" or rows.layer == rows.write_layer):
        return rows.write_layer
    only_add = rows.write_layer is not None
    raise InvalidRequest(
        "feature_site",
        f"{sae.id} reads {sae.hook_name}, where a feature can{' only be added' if only_add else 'not be steered'} "
        "while text is written. Use "
        + ("the operation add, or " if only_add else "")
        + "a source at resid_post or resid_pre.",
    )


def _amount(source: Intervention, sae: Sae) -> float:
    """The strength in the feature's own units, in residual norms for `relative`."""
    feature = source.feature
    assert feature is not None
    if source.unit == "raw" or source.operation == "ablate":
        return source.strength
    if source.unit == "relative":
        if sae.residual_norm is None:
            raise _not_indexed(sae, "how long the residual is there", "no_residual_norm")
        return source.strength * sae.residual_norm
    if sae.max_activations is None:
        raise _not_indexed(sae, "how large its features become", "no_max_activation")
    most = float(sae.max_activations[feature.index])
    if not most > 0:
        raise InvalidRequest(
            "no_max_activation",
            f"Feature {feature.index:,} of {sae.id} never fired in its corpus, so it has no maximum to count in. "
            "Use unit raw, or index a corpus in which it fires.",
        )
    return source.strength * most


def _not_indexed(sae: Sae, what: str, code: str) -> InvalidRequest:
    return InvalidRequest(
        code, f"It is not known {what}: {sae.id} has no corpus index. Index a corpus, or use unit raw."
    )


def _unit(row: np.ndarray, model: LoadedModel) -> np.ndarray:
    if row.shape != (model.d_model,):
        raise InvalidRequest(
            "wrong_size", f"The feature has {row.size} numbers; this model's residual stream is {model.d_model} wide."
        )
    length = float(np.linalg.norm(row.astype(np.float64)))
    if not np.isfinite(length) or length == 0.0:
        raise InvalidRequest(
            "bad_direction",
            "The feature's decoder row is zero or not finite. Choose another feature, or load it again.",
        )
    return (row.astype(np.float64) / length).astype(np.float32)
