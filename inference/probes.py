"""Probes and watches, compiled: what is read of every token of a row, and which edits wait for it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.edits import Edit
from inference.types import Probe, SteeringVector, Watch

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel


@dataclass(eq=False)
class CompiledProbe:
    """A reading of one token: bias + sum of weights[i] * activation[i], at `resid_post` of block `index`.

    Of a residual probe there is one row, read as it is.
    """

    source: Probe
    index: int
    rows: np.ndarray  # float32[n, d_model]
    weights: np.ndarray  # float32[n]
    bias: float

    @property
    def key(self) -> Hashable:
        """Equal for probes that read the same."""
        return self.index, self.rows.tobytes(), self.weights.tobytes(), self.bias


@dataclass(eq=False)
class CompiledWatch:
    """A watch of one row. `edits` are those of its interventions, gated by the probe; each has `gate` set to this."""

    source: Watch
    probe: CompiledProbe
    edits: list[Edit] = field(default_factory=list)

    @property
    def threshold(self) -> float | None:
        return self.source.threshold

    def dose(self, score: float) -> float:
        """The share of its interventions that a token of this score gets, 0 to 1."""
        w = self.source
        if w.force:
            return 1.0
        if w.threshold is None or not score > w.threshold:
            return 0.0
        return 1.0 if w.dose == "fixed" else min((score - w.threshold) / w.scale, 1.0)


def compile_probe(probe: Probe, sources: Any, model: LoadedModel) -> CompiledProbe:
    """`sources` is the engine's `Sources`, or None where there are none. Raises InvalidRequest or NotFound."""
    raise NotImplementedError


def compile_watch(
    watch: Watch, find: Callable[[str], SteeringVector], sources: Any, model: LoadedModel
) -> CompiledWatch:
    """Check and compile. Raises InvalidRequest or NotFound when anything cannot be honoured exactly."""
    raise NotImplementedError
