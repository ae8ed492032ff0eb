"""Matrix products on a CPU with weights laid out for its cache, which is where a decode step spends its time.

Two ways: our own, in native.c, on processors whose instructions it is made of, and oneDNN's. In both no bit of a row's
result changes with the number of rows beside it: with a plain weight it does. `docs/log.md` has what they bring.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inference.models.kernels import Kernels

PANEL = 64  # as in native.c
ROWS_HINT = 32  # oneDNN's layout that was fastest for every number of rows
DTYPES = (torch.float32, torch.bfloat16)


class PackedLinear(nn.Module):
    """One or more linear layers that share their input, as one product; outputs are joined along the last dimension.

    The plain weight is given up: `weight` unpacks it again.
    """

    least = 1  # rows that `product` takes

    def __init__(self, weight: Tensor):
        super().__init__()
        self.out_features, self.in_features = weight.shape

    @property
    def weight(self) -> Tensor:
        """[out_features, in_features], a plain copy."""
        raise NotImplementedError

    def product(self, lines: Tensor, room: Tensor | None = None) -> Tensor:
        """[n, in_features] to [n, out_features], for `least` rows or more; contiguous. It may lie in `room`."""
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        rows = input.reshape(-1, self.in_features)
        if len(rows) == 0:
            return input.new_zeros(*input.shape[:-1], self.out_features)
        lines = torch.cat((rows, rows)) if len(rows) < self.least else rows.contiguous()
        return self.product(lines)[: len(rows)].view(*input.shape[:-1], self.out_features)


class PanelLinear(PackedLinear):
    """The weight in panels of 64 outputs, in each of them input after input: `product` in native.c."""

    def __init__(self, weight: Tensor, bias: Tensor | None, native: Any):
        super().__init__(weight)
        self._native = native
        self.bias = None if bias is None else bias.detach().float()
        cell = cell_of(weight.dtype)
        room = -len(weight) % PANEL
        filled = torch.cat([weight.detach(), weight.new_zeros(room, self.in_features)]) if room else weight.detach()
        self.panels = filled.view(-1, PANEL, self.in_features // cell, cell).transpose(1, 2).contiguous()

    @property
    def weight(self) -> Tensor:
        return self.panels.transpose(1, 2).reshape(-1, self.in_features)[: self.out_features].clone()

    def product(self, lines: Tensor, room: Tensor | None = None) -> Tensor:
        out = lines.new_empty(len(lines), self.out_features) if room is None else room
        self._native.product(len(lines), self.in_features, self.out_features, lines, self.panels, self.bias, out)
        return out


class OneDnnLinear(PackedLinear):
    """oneDNN's own layout. A single row takes another kernel there, and so is computed as two equal ones."""

    least = 2

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__(weight)
        self.bias = bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), ROWS_HINT)

    @property
    def weight(self) -> Tensor:
        return self._packed.to_dense()

    def product(self, lines: Tensor, room: Tensor | None = None) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(lines, self._packed, self.bias, "none", [], "")


def joined(layers: Sequence[nn.Linear], native: Kernels | None = None) -> nn.Module:
    """Layers that share their input as one, packed where that is possible. Their own weights may be dropped after.

    `native` computes the products where it can; without it oneDNN does.
    """
    weight = _cat([layer.weight for layer in layers])
    bias = _cat([layer.bias for layer in layers]) if layers[0].bias is not None else None
    if native is not None and native.multiplies and weight.shape[1] % cell_of(weight.dtype) == 0:
        return PanelLinear(weight, bias, native)
    if can_pack(weight):
        return OneDnnLinear(weight, bias)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta", dtype=weight.dtype)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.bias = nn.Parameter(bias, requires_grad=False) if bias is not None else None
    return linear


def _cat(parts: Sequence[Tensor]) -> Tensor:
    """One after another; a lone one, which may be a whole vocabulary wide, without a copy."""
    return torch.cat([part.detach() for part in parts]) if len(parts) > 1 else parts[0].detach()


def cell_of(dtype: torch.dtype) -> int:
    """Inputs that one lane of native.c's product takes at once."""
    return 2 if dtype == torch.bfloat16 else 1


def can_pack(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype in DTYPES and torch.backends.mkldnn.is_available()


def pack_linears(model: nn.Module, native: Kernels | None = None) -> None:
    """Replace every plain linear layer that can be packed; others, and whatever is no nn.Linear, are left alone."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and can_pack(child.weight):
                setattr(parent, name, joined([child], native))
