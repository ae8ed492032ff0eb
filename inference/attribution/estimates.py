"""Attribution patching in its four forms. Each is a generator of small steps that fills `Scores`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inference.attribution.metrics import refuse_unless_finite
from inference.attribution.runs import Runs
from inference.attribution.scores import attention, linear
from inference.attribution.walk import Gradients, Steps, Walker

Steppers = Iterator[None]
RESIDUAL = ("resid_pre", "resid_post")


@dataclass
class Plan:
    sites: tuple[str, ...]
    layers: tuple[int, ...]
    qk_fix: bool = False

    @property
    def taps(self) -> set[str]:
        """Sites whose gradient is needed: for the fix of q and k that by z."""
        return {*self.sites, *(("z",) if self.fixed else ())}

    @property
    def kept(self) -> set[str]:
        return {*self.sites, *("qkv" if self.fixed else ())}

    @property
    def fixed(self) -> bool:
        return self.qk_fix and bool({"q", "k"} & {*self.sites})


@dataclass
class Scores:
    """By (site, layer): [t] or [t, heads]."""

    plan: Plan
    at: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def add(self, site: str, layer: int, scores: Tensor) -> None:
        key = (site, layer)
        self.at[key] = self.at[key] + scores if key in self.at else scores


def plain(walker: Walker, runs: Runs, scores: Scores) -> Steps[None]:
    """(clean - corrupted) . gradient at the corrupted run: one pass back for all sites."""
    for found in walker.back(runs.corrupted, runs.slope, scores.plan.taps, first=min(scores.plan.layers)):
        if found and found.layer in scores.plan.layers:
            for site in scores.plan.sites:
                scores.add(site, found.layer, _scored(runs, scores.plan, site, found)[0])
        yield


def dropped(walker: Walker, runs: Runs, scores: Scores) -> Steps[None]:
    """GradDrop (arXiv 2403.00745, section 3.2): mean |score| over gradients that each pass one layer by.

    The gradient that passes layer l by is that of the others above l, and goes its own way below. Row 0 is the plain
    one, the others those of the layers above. A gradient that leaves out the place's own layer says nothing of what
    that layer adds, so the mean there is over the others.
    """
    plan, slope, first = scores.plan, runs.slope, min(scores.plan.layers)
    for layer in reversed(range(first, walker.last)):
        h = runs.corrupted.at("resid_pre", layer)
        parts: list[dict[str, Tensor]] = []
        for some in walker.chunks(slope):
            n = len(slope[some])
            parts.append(walker.block_back(h.expand(n, *h.shape[1:]), layer, slope[some], plan.taps))
            yield
        found = Gradients(layer, {site: torch.cat([part[site] for part in parts]) for site in parts[0]})
        if layer in plan.layers:
            for site in plan.sites:
                each = _scored(runs, plan, site, found).abs()  # [1 + layers above, ...]
                total = each[1:].sum(dim=0) + layer * each[0]  # to drop a layer below changes nothing here
                if site == "resid_pre":  # with its own layer dropped, it is the gradient of what comes after
                    total = total + linear(runs.difference(site, layer)[None], slope[:1]).abs()[0]
                elif site == "resid_post":
                    total = total + each[0]
                scores.add(site, layer, total / max(1, walker.last - (site not in RESIDUAL)))
        slope = torch.cat([found.at["resid_pre"], slope[:1]])


def along_inputs(walker: Walker, runs: Runs, scores: Scores, steps: int) -> Steps[None]:
    """The embeddings move in a straight line; each site is integrated along its own way, in `steps` trapezoids."""
    plan = scores.plan
    shares = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    start = moved(runs, "resid_pre", 0, shares)
    trace = yield from walker.forward(start, 0, plan.kept, keep=plan.layers)
    _, slope = yield from walker.slope(trace.residual[-1], runs.metric)
    for found in walker.back(trace, slope, plan.taps, first=min(plan.layers)):
        if found and found.layer in plan.layers:
            for site in plan.sites:
                value, gradient = trace.at(site, found.layer).double(), found.at[site].double()
                mean = (gradient[1:] + gradient[:-1]) / 2
                scores.add(site, found.layer, linear(value[1:] - value[:-1], mean).sum(dim=0))
        yield


def along_sites(walker: Walker, runs: Runs, scores: Scores, steps: int) -> Steps[None]:
    """Each layer's whole site moves in a straight line; the gradient is taken at `steps` midpoints."""
    shares = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    for layer in scores.plan.layers:
        for site in scores.plan.sites:
            gradient = yield from _site_gradient(walker, runs, site, layer, shares)
            scores.add(site, layer, linear(runs.difference(site, layer)[None], gradient).mean(dim=0))


def site_gradient(walker: Walker, runs: Runs, site: str, layer: int, steps: int) -> Steps[Tensor]:
    """The mean gradient along the site's straight line, [t, ...], at `steps` midpoints; 0: at the corrupted run."""
    if steps:
        shares = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
        return (yield from _site_gradient(walker, runs, site, layer, shares)).mean(dim=0)
    for found in walker.back(runs.corrupted, runs.slope, {site}, first=layer):
        if found and found.layer == layer:
            return found.at[site][0]
        yield
    raise AssertionError("the layer was never reached")


def _site_gradient(walker: Walker, runs: Runs, site: str, layer: int, shares: Tensor) -> Steps[Tensor]:
    """[shares, t, ...]"""
    value = moved(runs, site, layer, shares)
    first, put = layer, None
    if site == "resid_pre":
        start = value
    elif site == "resid_post":
        start, first = value, layer + 1
    else:
        before = runs.corrupted.at("resid_pre", layer)
        start, put = before.expand(len(shares), *before.shape[1:]), {site: value}
    trace = yield from walker.forward(start, first, put=put)
    _, slope = yield from walker.slope(trace.residual[-1], runs.metric)
    if first == walker.last:
        return slope
    for found in walker.back(trace, slope, {site} if put else (), put=put):
        if found and found.layer == first:
            return found.at[site if put else "resid_pre"]
        yield
    raise AssertionError("the first layer was never reached")


def moved(runs: Runs, site: str, layer: int, shares: Tensor) -> Tensor:
    """[shares, t, ...]: the corrupted activation, moved by each share of the difference."""
    start, difference = runs.corrupted.at(site, layer), runs.difference(site, layer)
    wide = shares.to(start.device, start.dtype).reshape(-1, *[1] * difference.ndim)
    return start + wide * difference


def _scored(runs: Runs, plan: Plan, site: str, found: Gradients) -> Tensor:
    """[n, t, ...]"""
    if plan.fixed and site in ("q", "k"):
        return attention(runs, site, found.layer, found.at["z"])
    return linear(runs.difference(site, found.layer)[None], found.at[site])


def estimate(walker: Walker, runs: Runs, plan: Plan, *, steps: int, path: str, grad_drop: bool) -> Steps[Scores]:
    """Raises InvalidRequest where a score is not finite."""
    scores = Scores(plan)
    if grad_drop:
        yield from dropped(walker, runs, scores)
    elif not steps:
        yield from plain(walker, runs, scores)
    elif path == "inputs":
        yield from along_inputs(walker, runs, scores, steps)
    else:
        yield from along_sites(walker, runs, scores, steps)
    refuse_unless_finite(*scores.at.values())
    return scores


def cost(layers: Collection[int], sites: int, n_layers: int, *, steps: int, path: str, grad_drop: bool) -> int:
    """Passes that `estimate` takes, as the walker counts them."""
    depth = n_layers - min(layers)
    if grad_drop:
        return 3 * (depth + depth * (depth - 1) // 2)
    if not steps:
        return 3 * depth
    if path == "inputs":
        return (steps + 1) * (n_layers + 3 * depth)
    return 4 * steps * sites * sum(n_layers - layer for layer in layers)
