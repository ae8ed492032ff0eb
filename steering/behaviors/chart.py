"""The ROC curve as the numbers an SVG needs: nothing here is drawn by script."""

from __future__ import annotations

from dataclasses import dataclass

from steering.behaviors.detector import Detector

SIZE, LEFT, TOP, RIGHT, BOTTOM = 320, 42, 10, 20, 36


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Roc:
    """`path` is the curve, `at` the place of the threshold."""

    path: str
    diagonal: str
    x: float
    y: float
    columns: tuple[Tick, ...]
    rows: tuple[Tick, ...]
    width: int = SIZE
    height: int = SIZE
    left: int = LEFT
    top: int = TOP
    right: int = SIZE - RIGHT
    bottom: int = SIZE - BOTTOM


def across(rate: float) -> float:
    return round(LEFT + rate * (SIZE - LEFT - RIGHT), 1)


def down(rate: float) -> float:
    return round(SIZE - BOTTOM - rate * (SIZE - TOP - BOTTOM), 1)


def roc_of(detector: Detector, threshold: float) -> Roc:
    points = [(rates.false_positive_rate.estimate, rates.recall.estimate) for rates in detector.thresholds]
    whole = [(0.0, 0.0), *points, (1.0, 1.0)]
    path = "M" + "L".join(f"{across(x)} {down(y)}" for x, y in whole)
    here = detector.at(threshold)
    ticks = (0, 0.25, 0.5, 0.75, 1)
    return Roc(
        path,
        f"M{across(0)} {down(0)}L{across(1)} {down(1)}",
        across(here.false_positive_rate.estimate),
        down(here.recall.estimate),
        tuple(Tick(across(t), f"{t:.0%}") for t in ticks),
        tuple(Tick(down(t), f"{t:.0%}") for t in ticks),
    )
