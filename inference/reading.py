"""A probe, ready to be read off given activations: the same numbers that an engine reads while it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inference.latents import activation
from inference.probes import CompiledProbe, compile_probe
from inference.types import Probe

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel


@dataclass(frozen=True, eq=False)
class Read:
    """[tokens, d_model] at `resid_post` of `layer` to scores [tokens], in the model's computing type."""

    probe: CompiledProbe
    encoder: Tensor  # [n, d_model]
    numbers: Tensor  # [n, NUMBERS]
    weights: Tensor  # [n]

    @property
    def layer(self) -> int:
        return self.probe.index

    def __call__(self, hidden: Tensor) -> Tensor:
        h, read = hidden.to(self.weights.dtype), self.probe.latents
        if read.whole is not None:
            found = read.whole.latents(h, read.indices).to(h.dtype)
        else:
            products = torch.stack([(h * row).sum(-1) for row in self.encoder], dim=-1)
            found = activation(products, self.numbers)
        return (found * self.weights).sum(-1) + self.probe.bias


def compile_read(probe: Probe, model: LoadedModel) -> Read:
    """Raises InvalidRequest or NotFound for a probe that cannot be read exactly."""
    made = compile_probe(probe, model)
    arrays = made.latents.encoder, made.latents.numbers, made.weights
    return Read(made, *(torch.from_numpy(a).to(model.device, model.compute_dtype) for a in arrays))
