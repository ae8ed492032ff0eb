"""Every point of an experiment as a row: its condition, prompt, text and scores."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from steering.experiments.models import Experiment

COLUMNS = (
    "group", "vector", "operation", "layer", "strength", "place", "prompt", "text", "tokens", "stopped", "behaviour",
    "surprise", "variety",
)  # fmt: skip
ABOUT = ("vector", "operation", "layer", "strength")


def rows_of(experiment: Experiment, group: str = "") -> Iterator[dict[str, Any]]:
    """`vector` is its number among those of the settings, from 0."""
    about = {cell["group"]: cell for cell in conditions_of(experiment.findings)}
    points = experiment.points.select_related("measurement").order_by("group", "place")
    for point in (points.filter(group=group) if group else points).iterator(chunk_size=500):
        cell = about.get(point.group, {})
        result = point.measurement.result
        yield {
            "group": point.group,
            **{name: cell.get(name) for name in ABOUT},
            "place": point.place,
            "prompt": point.prompt,
            "text": result["text"],
            "tokens": result["tokens"],
            "stopped": result["stopped"],
            **{name: point.scores.get(name) for name in ("behaviour", "surprise", "variety")},
        }


def conditions_of(findings: dict[str, Any]) -> list[dict[str, Any]]:
    """Every condition that was measured, in the form of a cell."""
    named = ("base", "steered", "prompting", "tuning_base")
    return [*findings.get("cells", ()), *(findings[name] for name in named if name in findings)]


def as_jsonl(experiment: Experiment) -> Iterator[str]:
    for row in rows_of(experiment):
        yield json.dumps(row, ensure_ascii=False) + "\n"


def as_csv(experiment: Experiment) -> Iterator[str]:
    yield _line(dict(zip(COLUMNS, COLUMNS, strict=True)))
    for row in rows_of(experiment):
        yield _line(row)


def _line(row: dict[str, Any]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow([_safe(row[name]) for name in COLUMNS])
    return out.getvalue()


def _safe(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is shown as the text that it is."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
