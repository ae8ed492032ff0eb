"""How an optimised vector was trained, read from its provenance; a file may say anything there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from inference.types import OptimiseVector
from steering.jobs.curves import loss_name
from steering.vectors.facts import Facts

KINDS = {"optimised_promotion": "promotion", "bipo": "bipo", "melbo": "melbo"}  # a vector's method, the job's
USED = {
    "steps": "Steps",
    "kl_steps": "Bounded steps",
    "learning_rate": "Learning rate",
    "init_norm": "Norm of the start",
    "max_norm": "Largest norm",
    "target_layer": "Layer to change",
}
OWN = ("steps", "learning_rate", "max_norm", "target_layer")  # defaults that are the method's
ASKED = {
    "form": "Form",
    "rank": "Rank",
    "seeds": "Random starts",
    "target_loss": "Loss that suffices",
    "noise": "Noise",
}


@dataclass(frozen=True)
class Training:
    """`curve` is [[step, loss], ...]; `rows` are the settings in words."""

    method: str
    curve: list[list[float]]
    rows: list[tuple[str, str]]

    @property
    def loss_name(self) -> str:
        return loss_name(self.method)

    @property
    def said(self) -> str:
        first, best = self.curve[0][1], min(loss for _, loss in self.curve)
        return f"from {first:.3f} to {best:.3f} in {self.curve[-1][0]:g} steps; the best is what was kept"


def training_of(method: str, facts: Facts) -> Training | None:
    """None for a vector that was not found by descent, or does not say how."""
    curve = [point for point in _list(facts.provenance.get("curve")) if _is_point(point)]
    if not curve:
        return None
    used, asked = _dict(facts.provenance.get("used")), _dict(facts.provenance.get("settings"))
    rows = [(title, _word(used[name])) for name, title in USED.items() if used.get(name)]
    if asked.get("form") != "affine":
        asked = asked | {"rank": None}
    rows += [(title, _word(asked[name])) for name, title in ASKED.items() if asked.get(name) not in (None, 0, "")]
    return Training(KINDS.get(method, method), curve, rows)


def settings_of(facts: Facts) -> dict[str, Any]:
    """What it was trained with, by the names of OptimiseVector: the method's own numbers, and what else was asked."""
    fresh = OptimiseVector(id="", datapoints=(), layer=0).to_wire()
    said = _dict(facts.provenance.get("settings")) | {"kl_texts": _list(facts.provenance.get("kl_texts"))}
    used = {name: value for name, value in _dict(facts.provenance.get("used")).items() if name in OWN and value}
    return used | {name: value for name, value in said.items() if name in fresh and value != fresh[name]}


def _word(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:80]


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(_is_number(value) for value in point)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
