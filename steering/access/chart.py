"""Stacked bars by day, as the numbers an SVG needs: nothing here is drawn by script."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

WIDTH, HEIGHT = 960, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 10, 24
MOST_SERIES = 6  # as many colours as there are; what is smaller goes together
OTHERS = "others"
GRID_LINES = 4


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    series: int
    title: str


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """`series` are names; a bar's `series` is the place of its name, counted from 1."""

    bars: tuple[Bar, ...]
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]
    series: tuple[str, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


def stacked(points: Iterable[tuple[date, str, int]], days: list[date], unit: str = "tokens") -> Chart:
    """One column per day; `points` are (day, name, value), each pair of day and name once or more."""
    points = [(day, name, value) for day, name, value in points if value]
    names = _largest(points)
    heights = {day: [0] * len(names) for day in days}
    for day, name, value in points:
        if day in heights:
            heights[day][names.index(name if name in names else OTHERS)] += value
    step, top = _scale(max((sum(column) for column in heights.values()), default=0))
    room, down = (WIDTH - LEFT - RIGHT) / len(days), HEIGHT - TOP - BOTTOM
    bars = []
    for place, (day, column) in enumerate(heights.items()):
        base = float(HEIGHT - BOTTOM)
        for series, value in enumerate(column):
            height = down * value / top
            base -= height
            if value:
                title = f"{day:%-d %b}: {names[series]}, {value:,} {unit}"
                x = LEFT + room * (place + 0.12)
                bars.append(Bar(_px(x), _px(base), _px(room * 0.76), _px(height), series + 1, title))
    rows = tuple(Tick(_px(HEIGHT - BOTTOM - down * n * step / top), _short(n * step)) for n in range(top // step + 1))
    every = math.ceil(len(days) / 10)
    columns = tuple(
        Tick(_px(LEFT + room * (place + 0.5)), f"{day:%-d %b}")
        for place, day in enumerate(days)
        if (len(days) - 1 - place) % every == 0
    )
    return Chart(tuple(bars), rows, columns, tuple(names))


def _largest(points: list[tuple[date, str, int]]) -> list[str]:
    sums: dict[str, int] = {}
    for _, name, value in points:
        sums[name] = sums.get(name, 0) + value
    names = sorted(sums, key=lambda name: (-sums[name], name))
    return names if len(names) <= MOST_SERIES else [*names[: MOST_SERIES - 1], OTHERS]


def _scale(most: int) -> tuple[int, int]:
    """A round step between grid lines, and the value of the highest."""
    rough = max(most / GRID_LINES, 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(int(power * factor) for factor in (1, 2, 5, 10) if power * factor >= rough)
    return step, step * max(1, math.ceil(most / step))


def _short(value: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return str(value)


def _px(value: float) -> float:
    return round(value, 2)
