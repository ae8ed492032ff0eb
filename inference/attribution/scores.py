"""From activations of two runs and gradients to a number per place.

Scores are [t] or, of heads, [t, heads], NaN at positions that nothing is aligned with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inference.attribution.taps import Scoring
from inference.attribution.walk import Trace


@dataclass(frozen=True)
class Contrasted:
    """Both runs. `here` are positions of the corrupted prompt, `there` those of the clean one that stand for them."""

    clean: Trace
    corrupted: Trace
    there: Tensor
    here: Tensor

    @property
    def tokens(self) -> int:
        return self.corrupted.residual[0].shape[1]

    def patched(self, site: str, layer: int) -> Tensor:
        """The corrupted activation with the clean one wherever they are aligned: [t, ...]."""
        value = self.corrupted.at(site, layer)[0].clone()
        value[self.here] = self.clean.at(site, layer)[0][self.there]
        return value

    def difference(self, site: str, layer: int) -> Tensor:
        """Clean less corrupted, 0 where nothing is aligned: [t, ...]."""
        return self.patched(site, layer) - self.corrupted.at(site, layer)[0]

    def scattered(self, scores: Tensor) -> Tensor:
        """NaN wherever nothing is aligned: [..., t] or [..., t, heads] of [t] first."""
        full = torch.full_like(scores, float("nan"))
        full[self.here] = scores[self.here]
        return full


def linear(difference: Tensor, gradient: Tensor) -> Tensor:
    """(clean - corrupted) . gradient: [n, t] or [n, t, heads] of gradients [n, t, ...]."""
    wide = torch.float64
    return (difference.to(wide) * gradient.to(wide)).sum(dim=-1)


def attention(runs: Contrasted, site: str, layer: int, gradient_z: Tensor) -> Tensor:
    """AtP*'s fix for q and k (arXiv 2403.00745, section 3.1): attention computed anew, then what it moves in z.

    `gradient_z` is [n, t, heads, head_dim]; the answer [n, t, heads], of k summed over the heads that share it.
    """
    scoring = runs.corrupted.scoring[layer - runs.corrupted.first]
    assert scoring is not None
    q, k, v = (runs.corrupted.at(name, layer).double() for name in "qkv")
    new = runs.patched(site, layer)[None].double()
    heads, kv_heads = q.shape[2], k.shape[2]
    values = v.repeat_interleave(heads // kv_heads, dim=2)[0]
    gradient = torch.einsum("nihd,jhd->nhij", gradient_z.double(), values)
    if site == "q":
        moved = scoring.probabilities(scoring.scores(new, k)) - scoring.probabilities(scoring.scores(q, k))
        return (moved * gradient).sum(dim=-1).transpose(1, 2)
    by_query = _one_score_changed(scoring, scoring.scores(q, k), scoring.scores(q, new), gradient)
    by_query = by_query.sum(dim=-2).transpose(1, 2)  # [n, j, heads]
    return by_query.reshape(*by_query.shape[:2], kv_heads, heads // kv_heads).sum(dim=-1)


def _one_score_changed(scoring: Scoring, before: Tensor, after: Tensor, gradient: Tensor) -> Tensor:
    """What each row's softmax . gradient changes by when score j alone becomes `after`: [n, heads, i, j] of the same.

    A softmax against the others is a sigmoid. What the others sum to is what is left of all, which says nothing where j
    has nearly everything; that happens to one j of a row, whose others are summed without it.
    """
    logits, gradient = scoring.with_sink(before), nn.functional.pad(gradient, (0, int(scoring.sinks is not None)))
    pattern = logits.softmax(dim=-1)
    top = logits.argmax(dim=-1, keepdim=True)
    rest = logits.scatter(-1, top, -torch.inf)
    rest_mean = (rest.softmax(dim=-1).nan_to_num() * gradient).sum(dim=-1, keepdim=True)
    alone = torch.zeros_like(pattern, dtype=torch.bool).scatter(-1, top, True) & (pattern > 0.5)
    left = 1 - pattern
    mean = ((pattern * gradient).sum(dim=-1, keepdim=True) - pattern * gradient) / left
    others = torch.where(alone, rest.logsumexp(-1, keepdim=True), logits.logsumexp(-1, keepdim=True) + left.log())
    mean, t = torch.where(alone, rest_mean, mean), before.shape[-1]
    new = torch.sigmoid(after - others[..., :t])
    return (new - pattern[..., :t]) * (gradient - mean)[..., :t]


def listed(scores: Tensor, digits: int = 6) -> Any:
    """As JSON: nested lists, null for what is NaN, as many digits as mean something."""
    return _rounded(scores.tolist(), digits)


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, list):
        return [_rounded(part, digits) for part in value]
    return None if value != value else float(f"{value:.{digits}g}")
