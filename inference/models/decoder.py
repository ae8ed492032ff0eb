"""The decode step of a fused and packed model: packed products, and `native.c` for everything between them.

Same weights, cache and bank as the modules it stands in for, which still read the prompts. What is computed is the same;
only rounding differs, since less is rounded to bfloat16 on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inference.cache import KVCache
from inference.interventions import EMBEDDING, Bank
from inference.masks import window_of
from inference.models.fused import FusedAttention, FusedMLP, FusedNorm
from inference.models.kernels import Kernels, kernels
from inference.models.linear import PackedLinear

MAX_GROUPS, MAX_WIDTH = 16, 256  # as in native.c


@dataclass(frozen=True)
class Block:
    """What one transformer block is made of. `window` 0 is full attention."""

    norm: FusedNorm
    attention: FusedAttention
    post_norm: FusedNorm
    mlp: FusedMLP
    window: int

    @property
    def products(self) -> tuple[nn.Module, ...]:
        return self.attention.qkv, self.attention.o_proj, self.mlp.gate_up, self.mlp.down_proj


class Decoder:
    """One new token for each of some rows. Only the thread that owns the model may call it."""

    def __init__(self, hf: Any, blocks: list[Block], native: Kernels):
        self._embed, self._rotary, self._head = hf.model.embed_tokens, hf.model.rotary_emb, hf.lm_head
        self._final: FusedNorm = hf.model.norm
        self._blocks = blocks
        self._native: Any = native
        self._dtype: torch.dtype = hf.dtype

    def __call__(self, ids: Tensor, positions: Tensor, cache: KVCache, bank: Bank | None) -> Tensor:
        """Logits [rows, vocab] after `ids` [rows, 1] at `positions` [rows, 1]; the cache has been told by `append`."""
        rows = len(ids)
        x = self._embed(ids)
        cos, sin = (t.contiguous() for t in self._rotary(x, positions))
        positions = positions.contiguous()
        if bank and EMBEDDING in bank.sites:
            x = bank.apply(bank.sites[EMBEDDING], x)
        x = x.reshape(rows, -1).contiguous()
        first = self._blocks[0]
        heads, kv_heads, d = first.attention.heads, first.attention.kv_heads, first.attention.head_dim
        lines = max(rows, 2)  # a lone row takes another kernel, and so is computed with one of zeros beside it
        normed = x.new_zeros(lines, x.shape[1])
        mixed = x.new_zeros(lines, heads * d)
        inner = x.new_zeros(lines, first.mlp.down_proj.in_features)
        turns = cos.data_ptr(), sin.data_ptr()
        places = positions.data_ptr()
        native = self._native
        delta: Tensor | None = None
        for i, block in enumerate(self._blocks):
            attention = block.attention
            keys, values = cache.stores(i)
            row_stride, head_stride = keys.stride(0), keys.stride(1)
            stores = keys.data_ptr(), values.data_ptr()
            self._norm(rows, x, delta, block.norm, normed)
            qkv = attention.qkv.product(normed)
            native.rotate(
                rows,
                heads,
                kv_heads,
                d,
                qkv.data_ptr(),
                *turns,
                *_head_norms(attention),
                *stores,
                places,
                row_stride,
                head_stride,
            )
            native.attend(
                rows,
                heads,
                kv_heads,
                d,
                qkv.data_ptr(),
                *stores,
                places,
                row_stride,
                head_stride,
                attention.scaling,
                block.window,
                mixed.data_ptr(),
            )
            self._norm(rows, x, attention.o_proj.product(mixed), block.post_norm, normed)
            gate_up = block.mlp.gate_up.product(normed)  # named, since an address does not keep its tensor alive
            native.gated(rows, inner.shape[1], gate_up.data_ptr(), inner.data_ptr())
            delta = block.mlp.down_proj.product(inner)
            site = bank.sites.get(i) if bank else None
            if bank and site is not None:
                x = bank.apply(site, (x + delta[:rows])[:, None])[:, 0]
                delta = None
        self._norm(rows, x, delta, self._final, normed)
        return self._head.product(normed)[:rows]

    def _norm(self, rows: int, x: Tensor, delta: Tensor | None, norm: FusedNorm, out: Tensor) -> None:
        """x += delta; out = norm(x)."""
        added = None if delta is None else delta.data_ptr()
        self._native.norm(rows, x.shape[1], x.data_ptr(), added, norm.weight.data_ptr(), norm.eps, out.data_ptr())


def _head_norms(attention: FusedAttention) -> tuple[int | None, int | None, float]:
    q, k = attention.q_norm, attention.k_norm
    if q is None or k is None:
        return None, None, 0.0
    return q.weight.data_ptr(), k.weight.data_ptr(), q.eps


def decoder_of(hf: Any, cache_dir: Path) -> Decoder | None:
    """A decoder for a model that has been fused and packed, or None where one of its parts is another."""
    config = hf.config.get_text_config()
    stack = getattr(hf, "model", None)
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
