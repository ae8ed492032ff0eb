"""The job that patches for real, many places side by side, and says how well the estimate foretold it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inference.attribution import checks
from inference.attribution.attribute import Attributed, attributed, number
from inference.attribution.components import HOOKS, described, ranked, score_of, summed
from inference.attribution.metrics import refuse_unless_finite
from inference.attribution.prompts import prompts_of
from inference.attribution.runs import Runs
from inference.attribution.walk import Steps, Walker
from inference.attribution.work import Paced, Work, holding, opened
from inference.statistics import spearman
from inference.types import MOST_COMPONENTS, Component, PatchExactly, Progress, Result

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

MOST_POINTS_TOLD = 100  # in the facts of Progress


def patch_exactly(model: LoadedModel, job: PatchExactly) -> Iterator[Progress | Result]:
    """Result.payload as `PatchExactly` says. Raises InvalidRequest naming what is at fault and the way out."""
    checks.check_attribute(model, job)
    prompts = prompts_of(model, job)
    work = Work(model, job)
    with holding(model) as view:
        walker = yield from opened(work, view)
        checks.check_components(model, walker.anatomy, job.components, prompts)
        sites = tuple(dict.fromkeys((*job.sites, *(c.site for c in job.components))))
        layers = tuple(sorted({*checks.layers_of(model, job.layers), *(c.layer for c in job.components)}))
        checks.check_alignment(prompts, sites)
        found = yield from attributed(walker, work, job, prompts, sites, layers)
        chosen = _chosen(job, found)
        places, predicted = [place for place, _ in chosen], [number(value) for _, value in chosen]
        actual = yield from _patched(walker, work, found.runs, places, predicted)
        yield work.result(found.payload | _compared(places, predicted, actual, job) | actual.told)


def _chosen(job: PatchExactly, found: Attributed) -> list[tuple[Component, float]]:
    if job.components:
        return [(component, score_of(found.scores, component)) for component in dict.fromkeys(job.components)]
    scores = found.scores if job.by_position else summed(found.scores)
    chosen = ranked(scores, job.top or MOST_COMPONENTS + 1, job.by_position)
    if len(chosen) > MOST_COMPONENTS:
        raise checks.too_many(sum(int((~s.isnan()).sum()) for s in scores.values()))
    return chosen


class Actual:
    """What patching did, in the order of the components."""

    def __init__(self, n: int):
        self.effects: list[float | None] = [None] * n
        self.told: dict[str, Any] = {}


def _patched(
    walker: Walker, work: Work, runs: Runs, places: Sequence[Component], predicted: Sequence[float]
) -> Paced[Actual]:
    """Places of one site and layer run side by side. Places whose activations are the same need no run."""
    began = time.monotonic()
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, place in enumerate(places):
        groups[place.site, place.layer].append(index)
    work.total = walker.passes + sum((walker.last - layer) * len(group) for (_, layer), group in groups.items())
    work.facts = work.facts | {"phase": "patching", "patched": []}
    actual = Actual(len(places))
    for (site, layer), group in groups.items():
        note = f"Patching {sum(e is not None for e in actual.effects)} of {len(places)}"
        effects = yield from work.paced(walker, patches(walker, runs, site, layer, [places[i] for i in group]), note)
        for index, effect in zip(group, effects, strict=True):
            actual.effects[index] = number(effect)
        told = [described(places[i], predicted[i]) | {"actual": actual.effects[i]} for i in group]
        work.facts["patched"] = [*work.facts["patched"], *told][:MOST_POINTS_TOLD]
    actual.told = {"patch_seconds": round(time.monotonic() - began, 3)}
    return actual


def patches(walker: Walker, runs: Runs, site: str, layer: int, places: Sequence[Component]) -> Steps[list[float]]:
    """The effect of each place, all at one site and layer: metric(patched) - metric(corrupted)."""
    clean, corrupted = runs.patched(site, layer), runs.corrupted.at(site, layer)[0]
    masks = [_mask(corrupted, place) for place in places]
    moves = [i for i, mask in enumerate(masks) if bool((clean != corrupted)[mask.expand_as(clean)].any())]
    effects = [0.0] * len(places)
    fit = max(1, walker.row_tokens // corrupted.shape[0])
    for at in range(0, len(moves), fit):
        some = moves[at : at + fit]
        value = torch.stack([torch.where(masks[i], clean, corrupted) for i in some])
        values = yield from _run(walker, runs, site, layer, value)
        refuse_unless_finite(values)
        for i, effect in zip(some, values.tolist(), strict=True):
            effects[i] = effect - runs.metric_corrupted
        yield
    return effects


def _run(walker: Walker, runs: Runs, site: str, layer: int, value: Tensor) -> Steps[Tensor]:
    if site == "resid_pre":
        return (yield from walker.outcome(value, layer, runs.metric))
    if site == "resid_post":
        return (yield from walker.outcome(value, layer + 1, runs.metric))
    before = runs.corrupted.at("resid_pre", layer)
    start = before.expand(len(value), *before.shape[1:])
    return (yield from walker.outcome(start, layer, runs.metric, {site: value}))


def _mask(value: Tensor, place: Component) -> Tensor:
    """What of [t, ...] the place covers: bool, to be broadcast."""
    mask = torch.zeros((*value.shape[:-1], 1), dtype=torch.bool)
    rows = slice(None) if place.position is None else place.position
    if place.head is None:
        mask[rows] = True
    else:
        mask[rows, place.head] = True
    return mask.to(value.device)


def _compared(
    places: Sequence[Component], predicted: Sequence[float], actual: Actual, job: PatchExactly
) -> dict[str, Any]:
    effects = [float(e or 0.0) for e in actual.effects]
    shown = [abs(e) for e in effects] if job.grad_drop else effects
    by_site = {}
    for site in sorted({place.site for place in places}, key=list(HOOKS).index):
        mine = [i for i, place in enumerate(places) if place.site == site]
        by_site[site] = {"n": len(mine)} | correlations([predicted[i] for i in mine], [shown[i] for i in mine])
    return {
        "patched": [
            described(place, guess) | {"actual": effect}
            for place, guess, effect in zip(places, predicted, effects, strict=True)
        ],
        **correlations(predicted, shown),
        "by_site": by_site,
    }


def correlations(a: Sequence[float], b: Sequence[float]) -> dict[str, float | None]:
    """Pearson's and Spearman's; None for fewer than three points or where one side does not vary."""
    x, y = np.asarray(a, float), np.asarray(b, float)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"pearson": None, "spearman": None}
    return {"pearson": number(float(np.corrcoef(x, y)[0, 1])), "spearman": number(spearman(x, y))}
