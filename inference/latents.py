"""How single latents of a sparse autoencoder are read of a residual, without the rest of it where that is exact.

In a standard, JumpReLU or gated SAE whose input is not scaled token by token, a latent depends on h through one
product: z = encoder . h; its activation is max(slope * z + offset, low) where z lies above `floor`, else 0, with low 0.
In others (top-k, and what scales each token) the whole encoder is asked. A product alone, as a probe on residuals
reads it, has low and floor at minus infinity.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from inference.saes.sae import Sae

NUMBERS = 4  # slope, offset, floor, low


@dataclass(frozen=True, eq=False)
class Latents:
    """Some latents of one SAE. With `whole`, which is that SAE, encoder and numbers are zeros and it is asked."""

    indices: tuple[int, ...]
    encoder: np.ndarray  # float32[n, d_model]
    numbers: np.ndarray  # float32[n, NUMBERS]
    whole: Sae | None = None

    @property
    def key(self) -> Hashable:
        """Equal for latents that read the same."""
        asked = (self.whole.id, self.indices) if self.whole else None
        return asked, self.encoder.tobytes(), self.numbers.tobytes()


AT_ONCE = 2**24  # activations of whole encoders that are held at a time
AS_IT_IS = (1.0, 0.0, -np.inf, -np.inf)  # the numbers of a product alone


def activation(product: Tensor, numbers: Tensor) -> Tensor:
    """`product` is z; `numbers` [..., NUMBERS] goes with it."""
    slope, offset, floor, low = numbers.unbind(-1)
    value = torch.addcmul(offset, slope, product)
    return torch.where(product > floor, torch.maximum(value, low), 0.0)


def ask(sae: Sae, h: Tensor, indices: Sequence[int]) -> Tensor:
    """[rows, tokens, d_model] -> [rows, tokens, len(indices)] in the dtype of `h`, a few tokens at a time."""
    tokens = max(1, AT_ONCE // (len(h) * sae.width))
    return torch.cat([sae.latents(part, indices) for part in h.split(tokens, dim=1)], dim=1).to(h.dtype)
