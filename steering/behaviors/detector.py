"""What a fit found: the probe, its threshold, and how well it tells the behavior on texts it was not fitted on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from inference.statistics import Interval, wilson
from inference.types import Probe

FEW = 20  # pairs kept back


@dataclass(frozen=True)
class Rates:
    """What a threshold does to the texts held out, each share with its 95 % interval; None where nothing fires."""

    threshold: float
    false_positive_rate: Interval
    recall: Interval
    precision: Interval | None


@dataclass(frozen=True)
class Detector:
    """The payload of a `FitDetector`, read. It fires above the threshold."""

    facts: dict[str, Any]

    @cached_property
    def probe(self) -> Probe:
        return Probe.from_wire(self.facts["probe"])

    @property
    def layer(self) -> int:
        return int(self.facts["probe"]["layer"])

    @property
    def auroc(self) -> float:
        return float(self.facts["auroc"])

    @property
    def auroc_interval(self) -> Interval | None:
        found = self.facts.get("auroc_interval")
        return Interval(*map(float, found)) if found else None

    @property
    def warnings(self) -> list[str]:
        """What the fit doubted, a sentence each."""
        return [str(doubt["message"]) for doubt in self.facts.get("warnings") or ()]

    @property
    def few(self) -> bool:
        """Whether so little was kept back that the rates say little."""
        return self.held_out < FEW

    @property
    def scale(self) -> float:
        """The spread of scores above the threshold that the fit chose: where a proportional dose is whole."""
        return max(float(self.facts.get("scale") or 1.0), 1e-6)

    @property
    def held_out(self) -> int:
        """Texts of each side that the fit did not see."""
        return int(self.facts["n_held_out"])

    @cached_property
    def thresholds(self) -> list[Rates]:
        """One entry per point of the ROC curve, from the strictest on."""
        points = [point for point in self.facts["roc"] if point[2] is not None]
        return [self._rates(*map(float, point)) for point in points]

    def at(self, threshold: float) -> Rates:
        """The rates at a threshold: what fires above it is what fires above the next lower score there was."""
        found = next((rates for rates in self.thresholds if rates.threshold <= threshold), self.thresholds[-1])
        return replace(found, threshold=threshold)

    def _rates(self, fpr: float, tpr: float, threshold: float) -> Rates:
        n = max(self.held_out, 1)
        false, true = round(fpr * n), round(tpr * n)
        precision = wilson(true, true + false) if true + false else None
        return Rates(threshold, wilson(false, n), wilson(true, n), precision)
