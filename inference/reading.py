"""A probe, ready to be read off given activations: the same numbers that an engine reads while it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inference.errors import InvalidRequest
from inference.types import Probe

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel
    from inference.saes.sae import LatentRows
    from inference.saes.sources import Sources


MAX_FEATURES = 64  # of one probe


@dataclass(frozen=True, eq=False)
class Read:
    """[tokens, d_model] at `resid_post` of `layer` to scores [tokens], in the model's computing type."""

    layer: int
    weights: Tensor  # [d_model], or [features]
    bias: float
    latents: LatentRows | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        h = hidden.to(self.weights.dtype)
        if self.latents is None:
            return (h * self.weights).sum(-1) + self.bias
        full = self.latents.full
        read = full.latents(hidden, self.latents.indices).to(h.dtype) if full else self.latents.read(h)
        return (read * self.weights).sum(-1) + self.bias


def compile_read(probe: Probe, sources: Sources | None, model: LoadedModel) -> Read:
    """Raises InvalidRequest or NotFound for a probe that cannot be read exactly."""
    check_probe(probe, model)
    dtype, device = model.compute_dtype, model.device
    if probe.weights is not None:
        weights = torch.from_numpy(np.asarray(probe.weights, np.float32)).to(device, dtype)
        return Read(probe.layer, weights, float(probe.bias))
    if sources is None:
        raise InvalidRequest("no_sources", "This server has no sparse autoencoders. Use a probe on residuals.")
    sae = sources.get(probe.features[0].source, model)
    if sae.place.residual != probe.layer:
        raise InvalidRequest(
            "layer_not_of_source",
            f"{sae.id} does not read resid_post of layer {probe.layer}. Give the source's layer, or another source.",
        )
    rows = sae.rows([f.index for f in probe.features], dtype)
    return Read(probe.layer, torch.tensor(probe.feature_weights, device=device, dtype=dtype), float(probe.bias), rows)


def check_probe(probe: Probe, model: LoadedModel) -> None:
    """What can be said without opening a source. Raises InvalidRequest."""
    if not 0 <= probe.layer < model.n_layers:
        raise InvalidRequest(
            "layer_out_of_range",
            f"The probe's layer {probe.layer} does not exist: {model.id} has layers 0 to {model.n_layers - 1}.",
        )
    if (probe.weights is None) == (not probe.features):
        raise InvalidRequest("one_source", "A probe needs either weights or features, not both.")
    if probe.weights is not None:
        if probe.weights.shape != (model.d_model,):
            raise InvalidRequest(
                "wrong_size",
                f"The probe has {probe.weights.size} weights; this model's residual stream is {model.d_model} wide.",
            )
        if not np.isfinite(probe.weights).all() or not probe.weights.any():
            raise InvalidRequest("bad_probe", "The probe's weights are all zero or not finite. Fit the detector again.")
    elif len(probe.features) > MAX_FEATURES or len(probe.features) != len(probe.feature_weights):
        raise InvalidRequest(
            "bad_probe",
            f"A probe reads 1 to {MAX_FEATURES} features with a weight for each; this one names {len(probe.features)} "
            f"and has {len(probe.feature_weights)} weights.",
        )
    elif len({f.source for f in probe.features}) > 1:
        raise InvalidRequest("one_source", "The features of a probe must be of one source. Use a watch for each.")
    if not np.isfinite([probe.bias, *probe.feature_weights]).all():
        raise InvalidRequest("bad_probe", "The probe's numbers are not finite. Fit the detector again.")
