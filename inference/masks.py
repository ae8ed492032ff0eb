"""Which tokens each token may look at, for rows of different lengths and for sliding windows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def attention_masks(config: Any, positions: Tensor, visible: int, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """Additive masks [rows, 1, tokens, visible] for queries at `positions` [rows, tokens] and keys 0 .. visible.

    A model whose layers differ in kind (`layer_types`) gets one mask per kind, by name; others get one tensor. A window
    of w lets a token see itself and the w - 1 before it, as in transformers.
    """
    keys = torch.arange(visible, device=positions.device)
    causal = keys <= positions[:, None, :, None]
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    near = causal & (keys > positions[:, None, :, None] - window) if window else causal
    if kinds:
        by_kind = {"full_attention": causal, "sliding_attention": near}
        return {kind: _additive(by_kind[kind], dtype) for kind in set(kinds)}
    return _additive(near, dtype)


def window_of(config: Any, layer: int) -> int | None:
    """How many tokens, itself included, a token sees in this layer; None is all before it."""
    kinds = getattr(config, "layer_types", None)
    if kinds and kinds[layer] != "sliding_attention":
        return None
    return getattr(config, "sliding_window", None)


def _additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)
