"""What a trained SAE is worth, on text that it was not trained on.

Explained variance and L0 are of ordinary tokens: special tokens and attention sinks are left out, as in training. For
the loss, the SAE's reconstruction takes the place of the activation at those tokens, the others stay as they are; it
is compared with zeros and with the mean activation in the same places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from inference.models.plain import PlainView
from inference.saes.training.windows import Ids

MEASURED_TOKENS = 16_384  # of the held-out text
SPLICED_TOKENS = 4_096  # of those; four passes more are run for each


@dataclass
class Sums:
    """Over held-out tokens."""

    tokens: int = 0
    active: float = 0.0
    error: float = 0.0
    values: Tensor | None = None  # float64[2, d_model]: sums of the activations and of their squares
    fired: Tensor | None = None  # bool[d_sae]
    norms: list[Tensor] = field(default_factory=list)
    foretold: int = 0
    losses: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("clean", "spliced", "zero", "mean"), 0.0))

    @torch.no_grad()
    def add(self, hidden: Tensor, sae: Any) -> None:
        """Take in float32[tokens, d_model]."""
        latents = sae.encode(hidden)
        wide = hidden.double()
        sums = torch.stack([wide.sum(0), wide.square().sum(0)])
        fired = (latents > 0).any(0)
        self.values = sums if self.values is None else self.values + sums
        self.fired = fired if self.fired is None else self.fired | fired
        self.error += float((wide - sae.decode(latents)).square().sum())
        self.active += float((latents > 0).sum())
        self.tokens += len(hidden)
        self.norms.append(hidden.norm(dim=-1))

    def facts(self) -> dict[str, Any]:
        assert self.values is not None
        assert self.fired is not None
        variance = float((self.values[1] - self.values[0].square() / self.tokens).sum())
        losses = {name: loss / self.foretold for name, loss in self.losses.items()}
        return {
            "explained_variance": round(1 - self.error / variance, 4),
            "l0": round(self.active / self.tokens, 2),
            "silent": round(1 - float(self.fired.float().mean()), 4),
            "loss_recovered": _recovered(losses, "zero"),
            "loss_recovered_from_mean": _recovered(losses, "mean"),
            "losses": {name: round(loss, 4) for name, loss in losses.items()},
            "tokens": self.tokens,
            "tokens_spliced": self.foretold,
            "residual_norm": round(float(torch.cat(self.norms).median()), 3),
        }


def _recovered(losses: dict[str, float], against: str) -> float | None:
    harm = losses[against] - losses["clean"]
    return round((losses[against] - losses["spliced"]) / harm, 4) if harm > 0 else None


@torch.no_grad()
def measure(
    view: PlainView, sae: Any, windows: Sequence[Ids], layer: int, special: frozenset[int], limit: float, mean: Tensor
) -> dict[str, Any]:
    """The figures of a float32 `sae` at resid_post of `layer`; `limit` is the norm above which a token is a sink."""
    sums = Sums()
    for window in windows:
        if sums.tokens >= MEASURED_TOKENS:
            break
        ids = torch.tensor([window])
        _, hidden, _ = view.run(ids, layer=layer, until=layer)
        kept = torch.tensor([token not in special for token in window], device=hidden.device)
        kept &= hidden[0].float().norm(dim=-1) <= limit
        sums.add(hidden[0][kept].float(), sae)
        if sums.foretold < SPLICED_TOKENS and len(window) > 1:
            _splice(view, sae, ids, layer, hidden, kept, mean, sums)
    return sums.facts()


def _splice(
    view: PlainView, sae: Any, ids: Tensor, layer: int, hidden: Tensor, kept: Tensor, mean: Tensor, sums: Sums
) -> None:
    ordinary = hidden[0][kept].float()
    instead = {
        "clean": ordinary,
        "spliced": sae(ordinary),
        "zero": torch.zeros_like(ordinary),
        "mean": mean.to(ordinary).expand_as(ordinary),
    }
    columns = torch.arange(ids.shape[1] - 1, device=hidden.device)
    for name, values in instead.items():
        edited = hidden.clone()
        edited[0, kept] = values.to(hidden.dtype)
        logits, _, _ = view.run(
            ids,
            layer=layer,
            start=hidden,
            edit=lambda _, edited=edited: edited,
            read=(torch.zeros_like(columns), columns),
        )
        told = ids[0, 1:].to(logits.device)
        sums.losses[name] += float(torch.nn.functional.cross_entropy(logits, told, reduction="sum"))
    sums.foretold += len(columns)
