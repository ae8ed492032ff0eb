"""Matrix products on a CPU with weights laid out for its cache, which is where a decode step spends its time.

Measured with torch 2.13 on two AVX-512 cores, the default model's 120 fused products, milliseconds plain / packed:
bfloat16, one row 14.5 / 8.7, eight 22 / 9.8, thirty-two 29 / 21; float32, one row 31 / 17, eight 46 / 17, thirty-two
79 / 39. There, no bit of a row's result changes with the number of rows beside it: with a plain weight it does. A
single row takes another kernel, and so is computed as two equal ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

ROWS_HINT = 32  # the layout that was fastest for every number of rows
DTYPES = (torch.float32, torch.bfloat16)


class PackedLinear(nn.Module):
    """One or more linear layers that share their input, as one product; outputs are joined along the last dimension.

    The plain weight is given up: `weight` unpacks it again.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.bias = bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), ROWS_HINT)

    @property
    def weight(self) -> Tensor:
        """[out_features, in_features], a plain copy."""
        return self._packed.to_dense()

    def forward(self, input: Tensor) -> Tensor:
        rows = input.reshape(-1, self.in_features)
        if len(rows) == 0:
            return input.new_zeros(*input.shape[:-1], self.out_features)
        lines = torch.cat((rows, rows)) if len(rows) == 1 else rows
        return self.product(lines)[: len(rows)].view(*input.shape[:-1], self.out_features)

    def product(self, lines: Tensor) -> Tensor:
        """[n, in_features] to [n, out_features], for two rows or more."""
        return torch.ops.mkldnn._linear_pointwise(lines, self._packed, self.bias, "none", [], "")


def joined(layers: Sequence[nn.Linear]) -> nn.Module:
    """Layers that share their input as one, packed where that is possible. Their own weights may be dropped after."""
    weight = torch.cat([layer.weight.detach() for layer in layers])
    bias = torch.cat([layer.bias.detach() for layer in layers]) if layers[0].bias is not None else None
    if can_pack(weight):
        return PackedLinear(weight, bias)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta", dtype=weight.dtype)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.bias = nn.Parameter(bias, requires_grad=False) if bias is not None else None
    return linear


def can_pack(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype in DTYPES and torch.backends.mkldnn.is_available()


def pack_linears(model: nn.Module) -> None:
    """Replace every plain linear layer that can be packed; others, and whatever is no nn.Linear, are left alone."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and can_pack(child.weight):
                setattr(parent, name, joined([child]))
