"""Places that can be patched: how they are named, listed and ranked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from inference.types import HEAD_SITES, Component

HOOKS = {
    "resid_pre": "hook_resid_pre",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    **{site: f"attn.hook_{site}" for site in HEAD_SITES},
}

Scored = dict[tuple[str, int], Tensor]  # by site and layer: [t] or [t, heads]; summed: [] or [heads]


def hook_name(site: str, layer: int) -> str:
    """TransformerLens's."""
    return f"blocks.{layer}.{HOOKS[site]}"


def described(component: Component, predicted: float | None) -> dict[str, Any]:
    return component.to_wire() | {"hook": hook_name(component.site, component.layer), "predicted": predicted}


def ranked(scores: Scored, most: int | None, by_position: bool) -> list[tuple[Component, float]]:
    """Those with the largest magnitude first, at most `most`; places that nothing is aligned with are left out."""
    if not scores or most == 0:
        return []
    keys = list(scores)
    sizes = torch.tensor([scores[key].numel() for key in keys])
    flat = torch.cat([scores[key].reshape(-1) for key in keys])
    known = int((~flat.isnan()).sum())
    order = torch.argsort(flat.abs().nan_to_num(-1.0), descending=True, stable=True)
    order = order[: known if most is None else min(most, known)]
    ends = sizes.cumsum(0)
    found = []
    for at in order.tolist():
        which = int(torch.searchsorted(ends, at, right=True))
        site, layer = keys[which]
        inside = at - int(ends[which] - sizes[which])
        found.append((_component(site, layer, inside, scores[keys[which]].shape, by_position), float(flat[at])))
    return found


def _component(site: str, layer: int, inside: int, shape: torch.Size, by_position: bool) -> Component:
    heads = shape[-1] if site in HEAD_SITES else 1
    position, head = divmod(inside, heads)
    return Component(
        site,  # type: ignore[arg-type]
        layer,
        position if by_position else None,
        head if site in HEAD_SITES else None,
    )


def score_of(scores: Scored, component: Component) -> float:
    """What was predicted for a component: the sum over the positions and heads that it does not name."""
    value = scores[component.site, component.layer]
    if component.site in HEAD_SITES and component.head is not None:
        value = value[..., component.head]
    if component.position is not None:
        value = value[component.position]
    return float(value.nansum())


def summed(scores: Scored) -> Scored:
    """Over positions, those left out that nothing is aligned with."""
    return {key: value.nansum(dim=0) for key, value in scores.items()}


def table(scores: Scored, sites: Iterable[str], layers: Iterable[int]) -> dict[str, Tensor]:
    return {site: torch.stack([scores[site, layer] for layer in layers]) for site in sites}
