"""Taps in one block while it runs: read activations with their graph, or put others in their place.

Heads are reached by an attention function of ours, which transformers calls in place of its own, with queries and keys
as they meet (rotated), whatever the architecture. Nothing is left in the tree after the pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from inference.attribution.anatomy import Anatomy

NAME = "steerboard_taps"


@dataclass(frozen=True)
class Scoring:
    """How one layer makes attention of queries and keys."""

    scaling: float
    softcap: float | None
    mask: Tensor | None  # added, [n or 1, 1, t, t]
    sinks: Tensor | None  # [heads]

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """[n, heads, t, t] from q [n, t, heads, d] and k [n, t, kv_heads, d], masked."""
        k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
        scores = torch.einsum("nihd,njhd->nhij", q, k) * self.scaling
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        return scores if self.mask is None else scores + self.mask

    def probabilities(self, scores: Tensor) -> Tensor:
        """[n, heads, t, t]; with a sink they do not sum to 1."""
        return self.with_sink(scores).softmax(dim=-1)[..., : scores.shape[-1]]

    def with_sink(self, scores: Tensor) -> Tensor:
        """[..., t, t + 1] where there are sinks, which take a share of attention and give nothing."""
        wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if self.sinks is None:
            return wide
        sinks = self.sinks.to(wide)[None, :, None, None].expand(*wide.shape[:-1], 1)
        return torch.cat([wide, sinks], dim=-1)


@dataclass
class Taps:
    """`put` takes the place of what a site has; `got` holds what went on from there. Heads: [n, t, heads, head_dim].

    `past` are keys and values, [1, p, kv_heads, head_dim], of tokens that stand before those of the pass; `mask`
    [1, 1, t, p + t] is then added to scores in place of the model's own.
    """

    put: Mapping[str, Tensor] = field(default_factory=dict)
    got: dict[str, Tensor] = field(default_factory=dict)
    scoring: Scoring | None = None
    past: tuple[Tensor, Tensor] | None = None
    mask: Tensor | None = None

    def through(self, site: str, value: Tensor) -> Tensor:
        self.got[site] = value = self.put.get(site, value)
        return value


_tapped: WeakKeyDictionary[nn.Module, Taps] = WeakKeyDictionary()


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """As transformers' eager attention: heads first in, [n, t, heads, head_dim] out."""
    taps = _tapped.get(module) or Taps()
    q, k, v = (taps.through(name, x.transpose(1, 2)) for name, x in (("q", query), ("k", key), ("v", value)))
    if taps.past is not None:
        k, v = (
            torch.cat([old.expand(len(q), *old.shape[1:]), x], dim=1) for old, x in zip(taps.past, (k, v), strict=True)
        )
    attention_mask = attention_mask if taps.mask is None else taps.mask
    scaling = q.shape[-1] ** -0.5 if scaling is None else scaling
    taps.scoring = Scoring(scaling, softcap, attention_mask, s_aux)
    pattern = taps.scoring.probabilities(taps.scoring.scores(q, k)).to(v.dtype)
    mixed = torch.einsum("nhij,njhd->nihd", pattern, v.repeat_interleave(q.shape[2] // v.shape[2], dim=2))
    return taps.through("z", mixed).contiguous(), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, eager_mask)


@contextmanager
def tapped(anatomy: Anatomy, layer: int, taps: Taps) -> Iterator[Taps]:
    """While this is open, `layer` runs through `taps`, and attention of the whole view is computed by our function."""

    def out(site: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (taps.through(site, output[0]), *output[1:])
            return taps.through(site, output)

        return hook

    attention, config = anatomy.attention(layer), anatomy.config
    usual = config._attn_implementation
    handles = [
        anatomy.attn_out(layer).register_forward_hook(out("attn_out")),
        anatomy.mlp_out(layer).register_forward_hook(out("mlp_out")),
    ]
    config._attn_implementation, _tapped[attention] = NAME, taps
    try:
        yield taps
    finally:
        config._attn_implementation = usual
        _tapped.pop(attention, None)
        for handle in handles:
            handle.remove()
