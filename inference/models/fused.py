"""Attention, MLP and norms with fewer and larger operations than transformers' own, for the families that allow it.

Input projections become one product each, grouped heads are read without a copy, RMSNorm is one call. The blocks
themselves, and so every place where a hook sits, stay as they are. What is computed is the same; only rounding differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from inference.models.kernels import Kernels
from inference.models.linear import joined

ATTENTIONS = ("LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention")
MLPS = ("LlamaMLP", "MistralMLP", "Qwen2MLP", "Qwen3MLP")
NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")


class FusedAttention(nn.Module):
    """Takes the place of one of ATTENTIONS, with additive masks and a cache whose `update` may return more keys."""

    def __init__(self, source: Any, native: Kernels | None = None):
        super().__init__()
        self.layer_idx, self.head_dim, self.scaling = source.layer_idx, source.head_dim, source.scaling
        self.groups = source.num_key_value_groups
        self.kv_heads = source.k_proj.out_features // self.head_dim
        self.heads = self.kv_heads * self.groups
        self.qkv: Any = joined([source.q_proj, source.k_proj, source.v_proj], native)
        has_norms = hasattr(source, "q_norm")
        self.q_norm = FusedNorm(source.q_norm) if has_norms else None
        self.k_norm = FusedNorm(source.k_norm) if has_norms else None
        self.o_proj: Any = joined([source.o_proj], native)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        n, t = hidden_states.shape[:2]
        qkv = self.qkv(hidden_states).view(n, t, -1, self.head_dim)
        qk, v = qkv.split([self.heads + self.kv_heads, self.kv_heads], dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = qk.split([self.heads, self.kv_heads], dim=2)
            qk = torch.cat([self.q_norm(q), self.k_norm(k)], dim=2)
        q, k = _rotated(qk, *position_embeddings).transpose(1, 2).split([self.heads, self.kv_heads], dim=1)
        v = v.transpose(1, 2)
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, self.layer_idx)
        out = self._attend(q, k, v, attention_mask)
        return self.o_proj(out.transpose(1, 2).reshape(n, t, -1)), None

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """[n, heads, t, d]. The heads that share keys become further queries of one head."""
        n, _, t, d = q.shape
        if mask is None:
            return scaled_dot_product_attention(q, k, v, scale=self.scaling, is_causal=t > 1, enable_gqa=True)
        grouped = q.reshape(n, self.kv_heads, self.groups * t, d)
        mask = mask.repeat(1, 1, self.groups, 1) if t > 1 else mask
        if n == 1:  # alone, a row takes another path through the kernel, which rounds otherwise
            grouped, k, v, mask = (x.expand(2, -1, -1, -1) for x in (grouped, k, v, mask))
        out = scaled_dot_product_attention(grouped, k, v, attn_mask=mask, scale=self.scaling)
        return out[:n].reshape(n, self.heads, t, d)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of [n, t, heads, d] by [n, t, d]."""
    left, right = x.chunk(2, dim=-1)
    return x * cos[:, :, None] + torch.cat((-right, left), dim=-1) * sin[:, :, None]


class FusedMLP(nn.Module):
    """down(act(gate(x)) * up(x))."""

    def __init__(self, source: Any, native: Kernels | None = None):
        super().__init__()
        self.gate_up: Any = joined([source.gate_proj, source.up_proj], native)
        self.down_proj: Any = joined([source.down_proj], native)
        self.act = source.act_fn

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down_proj(self.act(gate) * up)


class FusedNorm(nn.Module):
    """RMSNorm over the last dimension."""

    def __init__(self, source: Any):
        super().__init__()
        self.weight, self.eps = source.weight, source.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.shape, self.weight, self.eps)


KINDS: dict[str, Callable[[Any, Kernels | None], nn.Module]] = {
    **dict.fromkeys(ATTENTIONS, FusedAttention),
    **dict.fromkeys(MLPS, FusedMLP),
    **dict.fromkeys(NORMS, lambda source, _: FusedNorm(source)),
}


def fuse(model: nn.Module, native: Kernels | None = None) -> None:
    """Replace the parts named above, wherever they stand; other models are left alone."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if kind := KINDS.get(type(child).__name__):
                setattr(parent, name, kind(child, native))
