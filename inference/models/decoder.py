"""The decode step of a fused and packed model: packed products, and `native.c` for everything between them.

Same weights, cache and bank as the modules it stands in for, which still read the prompts. What is computed is the
same; only rounding differs, since less is rounded to bfloat16 on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.cache import KVCache
from inference.interventions import EMBEDDING, Bank
from inference.masks import window_of
from inference.models.fused import FusedAttention, FusedMLP, FusedNorm
from inference.models.kernels import Kernels, kernels
from inference.models.linear import PackedLinear

MAX_GROUPS, MAX_WIDTH = 16, 256  # as in native.c


@dataclass(frozen=True)
class Block:
    """What one transformer block is made of."""

    norm: FusedNorm
    attention: FusedAttention
    post_norm: FusedNorm
    mlp: FusedMLP
    window: int  # 0 is full attention

    @cached_property
    def products(self) -> tuple[Any, ...]:
        """The packed layers, in the order in which they are needed."""
        return self.attention.qkv, self.attention.o_proj, self.mlp.gate_up, self.mlp.down_proj


class Decoder:
    """One new token for each of some rows. Only the thread that owns the model may call it."""

    def __init__(self, hf: Any, blocks: list[Block], native: Kernels):
        self.embed, self.rotary, self._head = hf.model.embed_tokens, hf.model.rotary_emb, hf.lm_head
        self._final: FusedNorm = hf.model.norm
        self.blocks = blocks
        self.native: Any = native

    def __call__(
        self, ids: Tensor, positions: Tensor, cache: KVCache, bank: Bank | None, owners: Tensor | None = None
    ) -> Tensor:
        """Logits [rows, vocab] after `ids` [rows, 1] at `positions` [rows, 1]; the cache has been told by `append`.

        Row r is of the cache's row `owners[r]`, int64[rows], where given: then several may stand in one, in a row.
        """
        rows = len(ids)
        x = self.embed(ids)
        turns = tuple(t.contiguous() for t in self.rotary(x, positions))
        x = x.reshape(rows, -1)
        steer(self.native, EMBEDDING, x, None, bank)
        lines = max(rows, 2)  # a lone row takes another kernel, and so is computed with one of zeros beside it
        attention, mlp = self.blocks[0].attention, self.blocks[0].mlp
        normed = x.new_zeros(lines, x.shape[1])
        mixed = x.new_zeros(lines, attention.heads * attention.head_dim)
        inner = x.new_zeros(lines, mlp.down_proj.in_features)
        delta: Tensor | None = None  # what the last block adds to x
        for i, block in enumerate(self.blocks):
            qkv, o_proj, gate_up, down_proj = block.products
            self.norm(x, delta, block.norm, normed)
            self._attend(block, qkv.product(normed), turns, owners, positions, cache.stores(i), mixed)
            self.norm(x, o_proj.product(mixed), block.post_norm, normed)
            self.native.gated(rows, inner.shape[1], gate_up.product(normed), inner)
            delta = down_proj.product(inner)
            if steer(self.native, i, x, delta, bank):
                delta = None
        self.norm(x, delta, self._final, normed)
        return self._head.product(normed)[:rows]

    def norm(self, x: Tensor, delta: Tensor | None, norm: FusedNorm, out: Tensor) -> None:
        """x += delta; out = norm(x)."""
        self.native.norm(*x.shape, x, delta, norm.weight, norm.eps, out)

    def _attend(
        self,
        block: Block,
        qkv: Tensor,
        turns: Sequence[Tensor],
        owners: Tensor | None,
        at: Tensor,
        stores: tuple[Tensor, Tensor],
        out: Tensor,
    ) -> None:
        strides = stores[0].stride()[:2]
        self.rotate(block, qkv, turns, at, stores, strides, owners)  # all of them, before any of them is read
        self.attend(block, qkv, None, at, stores, strides, out, owners)

    def rotate(
        self,
        block: Block,
        qkv: Tensor,
        turns: Sequence[Tensor],
        at: Tensor,
        stores: tuple[Tensor, Tensor],
        strides: Sequence[int],
        owners: Tensor | None = None,
    ) -> None:
        """Rotate queries and keys of one token per row, in place; keep keys and values `at` its place in `stores`.

        `strides` are those from row to row and from head to head. `attend` reads them from `firsts` on, None being 0.
        """
        part = block.attention
        sizes = len(at), part.heads, part.kv_heads, part.head_dim
        self.native.rotate(*sizes, qkv, *turns, *_head_norms(part), *stores, owners, at, *strides)

    def attend(
        self,
        block: Block,
        qkv: Tensor,
        firsts: Tensor | None,
        at: Tensor,
        stores: tuple[Tensor, Tensor],
        strides: Sequence[int],
        out: Tensor,
        owners: Tensor | None = None,
    ) -> None:
        part = block.attention
        sizes = len(at), part.heads, part.kv_heads, part.head_dim
        self.native.attend(*sizes, qkv, *stores, owners, firsts, at, *strides, part.scaling, block.window, out)


def steer(native: Any, index: int, x: Tensor, delta: Tensor | None, bank: Bank | None) -> bool:
    """What the bank does after block `index`, if anything: then x += delta, and its edits on top."""
    site = bank.sites.get(index) if bank else None
    if bank is None or site is None:
        return False
    if bank.observes(site):
        if delta is not None:
            x += delta[: len(x)]
            delta = None
        bank.observe(site, x[:, None])
    forms, share, edited = bank.forms[site], bank.share, None
    if forms.whole_rows is not None:  # these rows need a whole encoder; their neighbours keep to the kernel
        if delta is not None:
            x += delta[: len(x)]
            delta = None
        edited = bank.edit(site, x[:, None])[:, 0]
        share = torch.where(forms.whole_rows[:, None], 0.0, share)
    stacked = bank.read, bank.write, bank.numbers, share, bank.before, bank.after, bank.dose, bank.active
    longer = forms.encoder, forms.second, forms.rank, forms.map_read, forms.map_write, forms.map_bias
    native.steer(site, bank.read.shape[1], *x.shape, x, delta, *stacked, *longer)
    if edited is not None and forms.whole_rows is not None:
        x.copy_(torch.where(forms.whole_rows[:, None], edited, x))
    return True


def _head_norms(attention: FusedAttention) -> tuple[Tensor | None, Tensor | None, float]:
    q, k = attention.q_norm, attention.k_norm
    return (None, None, 0.0) if q is None or k is None else (q.weight, k.weight, q.eps)


def decoder_of(hf: Any, cache_dir: Path) -> Decoder | None:
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
    native = kernels(hf.dtype, cache_dir)
    return Decoder(hf, blocks, native) if native else None


def _fits(block: Block) -> bool:
    attention = block.attention
    return (
        all(isinstance(layer, PackedLinear) for layer in block.products)
        and attention.groups <= MAX_GROUPS
        and attention.head_dim <= MAX_WIDTH
        and attention.head_dim % 2 == 0
    )
