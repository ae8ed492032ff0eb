"""A norm with its divisor held: then it is linear, and what goes through it can be taken apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inference.errors import Unavailable

TOLERANCE = 1e-3


@dataclass(frozen=True)
class FrozenNorm:
    """norm(x) = weight * (x - mean of x, where that is taken off) / divisor + bias, at the x that it was made of."""

    weight: Tensor  # [d]
    bias: Tensor  # [d]
    divisor: float
    centres: bool

    def __call__(self, parts: Tensor) -> Tensor:
        """What each of [..., d] adds to norm(x), the bias left out."""
        parts = parts - parts.mean(dim=-1, keepdim=True) if self.centres else parts
        return parts / self.divisor * self.weight


@torch.no_grad()
def frozen(norm: nn.Module, x: Tensor) -> FrozenNorm:
    """At x, [d]; in float64. Raises Unavailable for a norm that is neither LayerNorm nor RMSNorm."""
    dtype = next((p.dtype for p in norm.parameters()), x.dtype)
    given, wide = norm(x[None].to(dtype))[0].double(), x.double()
    zero, ones = torch.zeros_like(x)[None].to(dtype), torch.ones_like(x)[None].to(dtype)
    eps = float(getattr(norm, "eps", getattr(norm, "variance_epsilon", 1e-6)) or 0.0)
    if centres := isinstance(norm, nn.LayerNorm):
        weight = torch.ones_like(wide) if norm.weight is None else norm.weight.double()
        divisor = float((wide.var(unbiased=False) + eps).sqrt())
    else:
        weight = norm(ones)[0].double() * (1 + eps) ** 0.5  # whatever it makes of its weight, as Gemma's 1 + w
        divisor = float((wide.square().mean() + eps).sqrt())
    found = FrozenNorm(weight, norm(zero)[0].double(), divisor, centres)
    if not torch.isclose(
        found(wide) + found.bias, given, rtol=TOLERANCE, atol=TOLERANCE * float(given.abs().max())
    ).all():
        raise Unavailable(
            "unknown_norm",
            f"{type(norm).__name__} is neither a LayerNorm nor an RMSNorm, so what goes through it cannot be taken "
            "apart. Use activation patching instead.",
        )
    return found
