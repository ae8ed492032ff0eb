"""Conditions, compiled: what is read of the residual stream, when it is decided, and what came out."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference.errors import InvalidRequest
from inference.types import AppliedCondition, Condition, Intervention, SteeringVector


@dataclass
class CompiledCondition:
    """`direction` is float32[d_model] of unit norm. `open` and `value` are set when the prompt has been read."""

    source: Condition
    direction: np.ndarray
    open: bool | None = None
    value: float | None = None

    @property
    def key(self) -> Hashable:
        c = self.source
        return c.layer, self.direction.tobytes(), c.threshold, c.comparison, c.measure, c.decided, c.pooling

    @property
    def on_prompt(self) -> bool:
        return self.source.decided == "prompt"

    def decide(self, hidden: np.ndarray) -> None:
        """From what the prompt was pooled to, float64[d_model]."""
        value = float(hidden @ self.direction.astype(np.float64))
        if self.source.measure == "cosine":
            size = float(np.linalg.norm(hidden))
            value = value / size if size > 0 else 0.0
        self.value = value
        self.open = (
            value > self.source.threshold if self.source.comparison == "above" else value < self.source.threshold
        )

    def applied(self, touched: float, held: float, value_sum: float) -> AppliedCondition:
        c, decided_on = self.source, touched + held
        value = self.value if self.on_prompt else value_sum / decided_on if decided_on else None
        facts = c.hook_name, c.measure, c.comparison, c.threshold, c.decided, c.pooling
        return AppliedCondition(*facts, value=value, held_tokens=int(held))


def compile_condition(
    source: Intervention, index: int, vector: SteeringVector | None, n_layers: int, d_model: int
) -> CompiledCondition:
    """`index` is the block after which the intervention acts. Raises InvalidRequest."""
    condition = source.condition
    assert condition is not None
    if not 0 <= condition.layer < n_layers:
        raise InvalidRequest(
            "layer_out_of_range",
            f"The condition's layer {condition.layer} does not exist: this model has layers 0 to {n_layers - 1}.",
        )
    if (condition.vector_id is None) == (condition.direction is None):
        raise InvalidRequest("one_source", "A condition needs either a vector_id or a direction, not both.")
    if condition.measure == "cosine" and not -1 <= condition.threshold <= 1:
        raise InvalidRequest(
            "bad_threshold",
            f"A cosine lies between -1 and 1, so a threshold of {condition.threshold:g} decides nothing. "
            "Choose one in between, or measure the projection.",
        )
    if condition.decided == "prompt" and source.positions.prompt:
        raise InvalidRequest(
            "condition_on_prompt",
            "A condition that the prompt decides is known only when the prompt has been read, so it cannot steer the "
            "prompt. Set positions.prompt to false, or decide it at every token.",
        )
    if condition.decided == "token" and condition.layer > index:
        raise InvalidRequest(
            "condition_after_edit",
            f"A condition that every token decides must be read no later than it steers; layer {condition.layer} comes "
            f"after the steered one. Choose a layer up to {max(index, 0)}, or decide it on the prompt.",
        )
    values = condition.direction if vector is None else vector.at(condition.layer).values
    assert values is not None
    return CompiledCondition(condition, _unit(values, d_model))


def _unit(values: np.ndarray, d_model: int) -> np.ndarray:
    wide = np.asarray(values, dtype=np.float64)
    if wide.shape != (d_model,):
        raise InvalidRequest(
            "wrong_size",
            f"The condition's direction has {wide.size} numbers; this model's residual stream is {d_model} wide.",
        )
    length = float(np.linalg.norm(wide))
    if not np.isfinite(length) or length == 0.0:
        raise InvalidRequest("bad_direction", "The condition's direction is zero or not finite. Build it again.")
    return (wide / length).astype(np.float32)


class Readout:
    """The residual after one block, pooled over one prompt while that is read, in chunks of any size.

    Sums are float64, so that where the chunks end decides nothing. Rows that share the reading share the readout.
    """

    def __init__(self, layer: int, pooling: str, prompt_length: int):
        self.layer, self.pooling, self._last = layer, pooling, prompt_length - 1
        self._sums: Tensor | None = None  # float64[2, d_model]: of ordinary tokens, of all
        self._counts = torch.zeros(2, dtype=torch.float64)

    def take(self, hidden: Tensor, positions: Tensor, special: Tensor, in_prompt: Tensor) -> None:
        """`hidden` [tokens, d_model] of this row, the others [tokens]."""
        every = in_prompt & (positions == self._last) if self.pooling == "last" else in_prompt
        weights = torch.stack((every & ~special, every)).double()
        sums = torch.stack([(hidden.double() * w[:, None]).sum(0) for w in weights])
        counts = weights.sum(1)
        self._sums = sums if self._sums is None else self._sums + sums
        self._counts = self._counts.to(counts.device) + counts

    def pooled(self) -> np.ndarray:
        """float64[d_model]."""
        assert self._sums is not None
        counts = self._counts.tolist()
        which = 0 if counts[0] > 0 and self.pooling == "mean" else 1
        return (self._sums[which] / counts[which]).cpu().numpy()
