"""The two runs that every estimate begins with."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from inference.attribution.metrics import Metric, refuse_unless_finite
from inference.attribution.prompts import Prompts
from inference.attribution.scores import Contrasted
from inference.attribution.walk import Steps, Walker


@dataclass(frozen=True)
class Runs(Contrasted):
    """With what was measured, and the gradient by what the final norm gets in the corrupted run, [1, t, d]."""

    metric: Metric
    metric_clean: float
    metric_corrupted: float
    slope: Tensor

    @property
    def span(self) -> float:
        return self.metric_clean - self.metric_corrupted


def both_runs(walker: Walker, prompts: Prompts, sites: Collection[str], layers: Collection[int]) -> Steps[Runs]:
    """Raises InvalidRequest where the numbers are not finite. `sites` beside the residual are kept at `layers`."""
    clean = yield from walker.forward(walker.embed(prompts.clean), 0, sites, keep=layers)
    metric = prompts.metric.towards(walker.logits_of_run(clean))
    if prompts.corrupted is None:
        corrupted = clean
    else:
        corrupted = yield from walker.forward(walker.embed(prompts.corrupted), 0, sites, keep=layers)
    metric_clean = walker.measured(clean.residual[-1], metric)
    metric_corrupted, slope = yield from walker.slope(corrupted.residual[-1], metric)
    refuse_unless_finite(metric_clean, metric_corrupted, slope)
    there, here = prompts.places()
    device = slope.device
    return Runs(
        clean,
        corrupted,
        there.to(device),
        here.to(device),
        metric,
        float(metric_clean[0]),
        float(metric_corrupted[0]),
        slope,
    )
