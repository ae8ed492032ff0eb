"""The passes of a fused and packed model without its modules: blocks by `native.c`, edits by the bank between them.

Same weights, cache and bank as the modules it stands in for. What is computed is the same; only rounding differs, since
less is rounded to bfloat16 on the way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from inference import wakes
from inference.cache import KVCache
from inference.interventions import EMBEDDING, Bank
from inference.masks import window_of
from inference.models.fused import FusedNorm
from inference.models.kernels import Kernels
from inference.models.linear import PackedLinear
from inference.models.stack import Block, Edits, stack_of

MAX_GROUPS, MAX_WIDTH = 16, 256  # as in native.c


class Decoder:
    """New tokens for some rows of a cache. Only the thread that owns the model may call it."""

    def __init__(self, hf: Any, blocks: list[Block], native: Kernels):
        self.embed, self.rotary, self._head = hf.model.embed_tokens, hf.model.rotary_emb, hf.lm_head
        self._final: FusedNorm = hf.model.norm
        self.stack = stack_of(blocks, native)

    def __call__(
        self,
        ids: Tensor,
        positions: Tensor,
        cache: KVCache,
        bank: Bank | None,
        owners: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Logits after `ids` [n, t] at `positions` [n, t]; the cache has been told which those are.

        Run i, of t tokens, is of the cache's row `owners[i]`, int64[n], where given: then several may stand in one, in
        a row. The logits are [n, k, vocab], at the places of the t that `keep` int64[k] names, or at the last one.
        """
        n, t = ids.shape
        count = len(self.stack.blocks)
        x = self.embed(ids)
        turns = [turn.reshape(n * t, -1).contiguous() for turn in self.rotary(x, positions)]
        x = x.reshape(n * t, -1)
        whose = owners.repeat_interleave(t) if owners is not None and t > 1 else owners
        lines = self.stack.lines(turns, positions.reshape(-1).contiguous(), whose, cache)
        self._touch(EMBEDDING, x, n, bank)
        wakes.release()
        inside = _plain_sites(bank) if len(x) == n and self.stack.steers else {}
        edits = _edits(bank, [inside.get(i, -1) for i in range(count)]) if bank and inside else None
        for first, last in _spans(count, bank, inside):
            self.stack.run(first, last, x, lines, edits)
            if last - 1 not in inside:
                self._touch(last - 1, x, n, bank)
        x = x.view(n, t, -1)
        wanted = (x[:, -1:] if keep is None else x[:, keep]).contiguous()
        normed = torch.empty_like(wanted)
        self.stack.norm(wanted.view(-1, x.shape[-1]), None, self._final, normed)
        return self._head(normed)

    def _touch(self, index: int, x: Tensor, n: int, bank: Bank | None) -> None:
        """What the bank does after block `index`, if anything, to x [n * t, d_model] in place."""
        site = bank.sites.get(index) if bank else None
        if bank is None or site is None:
            return
        if len(x) == n:
            steer(self.stack.native, site, x, bank)
        else:
            hidden = x.view(n, -1, x.shape[1])
            hidden.copy_(bank.apply(site, hidden))


def _edits(bank: Bank, sites: list[int]) -> Edits:
    return Edits(sites, bank.read.shape[1], stacked(bank))


def _plain_sites(bank: Bank | None) -> dict[int, int]:
    """Sites, by the block before them, at which nothing is observed and no edit needs more than `stacked` holds."""
    if bank is None:
        return {}
    return {
        index: site
        for index, site in bank.sites.items()
        if index != EMBEDDING and bank.forms[site].plain and not bank.observes(site)
    }


def _spans(blocks: int, bank: Bank | None, inside: Collection[int]) -> Iterator[tuple[int, int]]:
    """The runs of blocks between which a bank does something; what it does after those `inside` is done by the run."""
    ends = {index + 1 for index in bank.sites if index not in inside} - {EMBEDDING + 1} if bank else set()
    return pairwise([0, *sorted(ends | {blocks})])


def stacked(bank: Bank, share: Tensor | None = None) -> tuple[Tensor | None, ...]:
    """What `steer` of native.c wants of a whole bank, with another `share` where given."""
    share = bank.share if share is None else share
    return bank.read, bank.write, bank.numbers, share, bank.before, bank.after, bank.dose, bank.active


def steer(native: Any, site: int, x: Tensor, bank: Bank) -> None:
    """What the bank does at a site to x [rows, d_model], one token of each of its rows."""
    if bank.observes(site):
        bank.observe(site, x[:, None])
    forms, share, edited = bank.forms[site], None, None
    if forms.whole_rows is not None:  # these rows need a whole encoder; their neighbours keep to the kernel
        edited = bank.edit(site, x[:, None])[:, 0]
        share = torch.where(forms.whole_rows[:, None], 0.0, bank.share)
    longer = forms.encoder, forms.second, forms.rank, forms.map_read, forms.map_write, forms.map_bias
    native.steer(site, bank.read.shape[1], *x.shape, x, None, *stacked(bank, share), *longer)
    if edited is not None and forms.whole_rows is not None:
        x.copy_(torch.where(forms.whole_rows[:, None], edited, x))


def decoder_of(hf: Any, native: Kernels) -> Decoder | None:
    """A decoder for a model that has been fused and packed, or None where one of its parts is another."""
    config = hf.config.get_text_config()
    stack: Any = getattr(hf, "model", None)
    if not isinstance(getattr(stack, "norm", None), FusedNorm) or not isinstance(
        getattr(hf, "lm_head", None), PackedLinear
    ):
        return None
    blocks = [
        Block(b.input_layernorm, b.self_attn, b.post_attention_layernorm, b.mlp, window_of(config, i) or 0)
        for i, b in enumerate(stack.layers)
    ]
    if config.hidden_act != "silu" or not all(_fits(block) for block in blocks):
        return None
    return Decoder(hf, blocks, native)


def _fits(block: Block) -> bool:
    attention = block.attention
    return (
        all(isinstance(layer, PackedLinear) for layer in block.products)
        and attention.groups <= MAX_GROUPS
        and attention.head_dim <= MAX_WIDTH
        and attention.head_dim % 2 == 0
    )
