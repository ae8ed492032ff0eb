"""How single latents of a sparse autoencoder are read of a residual, without the rest of it where that is exact.

In a standard, JumpReLU or gated SAE whose input is not scaled token by token, a latent depends on h through one
product: z = encoder . h; its activation is max(slope * z + offset, low) where z lies above `floor`, else 0, with low 0.
In others (top-k, and what scales each token) the whole encoder is asked. A product alone, as a probe on residuals
reads it, has low and floor at minus infinity.
"""

from __future__ import annotations

from collections.abc import Hashable
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


AS_IT_IS = (1.0, 0.0, -np.inf, -np.inf)  # the numbers of a product alone


def activation(product: Tensor, numbers: Tensor) -> Tensor:
    """`product` is z; `numbers` [..., NUMBERS] goes with it."""
    slope, offset, floor, low = numbers.unbind(-1)
    value = torch.addcmul(offset, slope, product)
    return torch.where(product > floor, torch.maximum(value, low), 0.0)
