"""Edits of the residual stream inside vLLM's blocks, row by row, in place.

vLLM packs the tokens of all requests into [tokens, d_model]. Most of its blocks hand on the stream as two tensors whose
sum it is, since the next norm adds them up. All tokens of a row with an edit at a site get the sum in the first and
zero in the second, also those outside the edit's window, whose sum is as it was; a row without one keeps both as they
are, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inference.interventions import EMBEDDING, Bank


@dataclass(frozen=True, eq=False)
class Lines:
    """Tokens of a pass whose edits are stacked in one bank: where each stands in the pass, int64[rows, tokens]."""

    bank: Bank
    at: Tensor
    steered: list[Tensor]  # of each site of the bank, the rows with an edit there

    def act(self, site: int, hidden: Tensor, residual: Tensor | None) -> None:
        stream = hidden[self.at].to(self.bank.read.dtype)
        if residual is not None:
            stream += residual[self.at]
        edited = self.bank.apply(site, stream)
        rows = self.steered[site]
        if len(rows):
            places = self.at[rows]
            hidden[places] = edited[rows].to(hidden.dtype)
            if residual is not None:
                residual[places] = 0


def steered_rows(bank: Bank, device: torch.device) -> list[Tensor]:
    return [torch.tensor([r for r, edits in enumerate(site) if edits], device=device).long() for site in bank.edits]


class StreamHooks:
    """On the blocks of a vLLM model, from the start; they do nothing while `lines` is empty."""

    def __init__(self, blocks: nn.ModuleList):
        self.lines: list[Lines] = []
        blocks[0].register_forward_pre_hook(self._before_first, with_kwargs=True)
        for i, block in enumerate(blocks):
            block.register_forward_hook(self._after(i))

    def _act(self, index: int, hidden: Tensor, residual: Tensor | None) -> None:
        if hidden.ndim == 3:  # a model of transformers that vLLM runs has a batch of one
            hidden = hidden[0]
        for lines in self.lines:
            site = lines.bank.sites.get(index)
            if site is not None:
                lines.act(site, hidden, residual)

    def _before_first(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.is_floating_point()]
        self._act(EMBEDDING, given[0], None)

    def _after(self, index: int) -> Callable[[nn.Module, tuple, Tensor | tuple], None]:
        def hook(module: nn.Module, args: tuple, output: Tensor | tuple) -> None:
            hidden, residual = output[:2] if isinstance(output, tuple) else (output, None)
            self._act(index, hidden, residual)

        return hook
