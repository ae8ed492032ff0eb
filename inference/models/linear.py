"""Matrix products of a decode step on a CPU, where the usual kernels are slow for a few rows.

Measured with torch 2.13 on two AVX-512 cores, float32, thirty weights of [1536, 576]: as x W^T one row takes 8.0 ms,
two 13.0, eight 9.9; as W x^T two rows take 2.8 ms and eight 6.7. One row is therefore computed as two equal ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOST_ROWS = 8


class FewRowsLinear(nn.Linear):
    """`nn.Linear` that turns the product around for inputs of at most MOST_ROWS rows."""

    def forward(self, input: Tensor) -> Tensor:
        rows = input.numel() // input.shape[-1]
        if not 0 < rows <= MOST_ROWS:
            return super().forward(input)
        lines = input.reshape(rows, -1)
        lines = lines.repeat(2, 1) if rows == 1 else lines  # real copies: an expanded view takes a slow path
        product = torch.mm(self.weight, lines.t())
        output = product[:, :rows].t().contiguous().view(*input.shape[:-1], -1)
        return output if self.bias is None else output + self.bias


def speed_up_few_rows(model: nn.Module) -> None:
    """Give every plain linear layer of a float32 model on a CPU the faster product; others are left alone."""
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.dtype == torch.float32 and module.weight.device.type == "cpu":
            module.__class__ = FewRowsLinear
