"""What a job asks for, or a refusal that names the way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from inference.attribution.anatomy import Anatomy
from inference.attribution.prompts import Prompts
from inference.errors import InvalidRequest
from inference.types import (
    HEAD_SITES,
    MOST_COMPONENTS,
    MOST_INTEGRATION_STEPS,
    Attribute,
    Component,
)

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

MOST_SCORES = 200_000  # numbers in one answer


def check_attribute(model: LoadedModel, job: Attribute) -> None:
    if not job.sites:
        raise InvalidRequest("no_sites", "No site is named. Choose at least one, such as resid_pre.")
    check_steps(job.steps)
    if not 0 <= job.top <= MOST_COMPONENTS:
        raise _range("top", job.top, 0, MOST_COMPONENTS)
    layers_of(model, job.layers)
    if job.steps and (job.qk_fix or job.grad_drop):
        raise InvalidRequest(
            "options_do_not_mix",
            "The query/key fix and gradient drop are of one gradient, and integrated gradients take several. Use "
            "steps 0, or leave them out.",
        )
    if job.qk_fix and not {"q", "k"} & {*job.sites}:
        raise InvalidRequest(
            "nothing_to_fix", "The query/key fix is about q and k. Add them to sites, or leave it out."
        )


def check_steps(steps: int) -> None:
    if not 0 <= steps <= MOST_INTEGRATION_STEPS:
        raise _range("steps", steps, 0, MOST_INTEGRATION_STEPS)


def layers_of(model: LoadedModel, layers: Sequence[int]) -> tuple[int, ...]:
    """All of them where none is named, in order."""
    for layer in layers:
        check_layer(model, layer)
    return tuple(sorted({*layers})) or tuple(range(model.n_layers))


def check_layer(model: LoadedModel, layer: int) -> None:
    if not 0 <= layer < model.n_layers:
        raise _range("layer", layer, 0, model.n_layers - 1)


def check_alignment(prompts: Prompts, sites: Sequence[str]) -> None:
    rotated = [site for site in sites if site in ("q", "k")]
    if rotated and prompts.alignment and prompts.alignment.shifted:
        raise InvalidRequest(
            "positions_differ",
            f"{' and '.join(rotated)} carry their position, and aligned tokens stand at different ones in these "
            "prompts. Leave them out, or write prompts of one length.",
        )


def check_size(anatomy: Anatomy, sites: Sequence[str], layers: Sequence[int], tokens: int) -> None:
    each = sum(heads_of(anatomy, site) for site in sites) * len(layers)
    if each * tokens > MOST_SCORES:
        raise InvalidRequest(
            "too_many_scores",
            f"{len(sites)} sites at {len(layers)} layers and {tokens} tokens are {each * tokens:,} scores; at most "
            f"{MOST_SCORES:,} fit one answer. Name fewer layers or sites, or sum over positions.",
        )


def check_components(
    model: LoadedModel, anatomy: Anatomy, components: Sequence[Component], prompts: Prompts, most: int = MOST_COMPONENTS
) -> None:
    if len(components) > most:
        raise too_many(len(components), most)
    aligned = {corrupted for _, corrupted in prompts.alignment.pairs} if prompts.alignment else set()
    for component in components:
        check_layer(model, component.layer)
        if component.head is not None and component.site not in HEAD_SITES:
            raise InvalidRequest(
                "no_heads_there", f"{component.site} has no heads. Leave the head out, or take {', '.join(HEAD_SITES)}."
            )
        heads = heads_of(anatomy, component.site)
        if component.head is not None and not 0 <= component.head < heads:
            raise _range(f"head of {component.site}", component.head, 0, heads - 1)
        if component.position is not None and component.position not in aligned:
            raise InvalidRequest(
                "position_not_aligned",
                f"Position {component.position} of the corrupted prompt stands for no token of the clean one. Choose "
                "another, or give the alignment by hand.",
            )


def heads_of(anatomy: Anatomy, site: str) -> int:
    if site in ("k", "v"):
        return anatomy.kv_heads
    return anatomy.heads if site in HEAD_SITES else 1


def too_many(n: int, most: int = MOST_COMPONENTS) -> InvalidRequest:
    return InvalidRequest(
        "too_many_components",
        f"{n:,} components are too many to patch one by one; at most {most:,} are. Name a top, fewer layers or sites, "
        "or sum over positions.",
    )


def _range(name: str, value: int, low: int, high: int) -> InvalidRequest:
    return InvalidRequest("out_of_range", f"{name} is {value}; it may be {low} to {high}. Change it.")
