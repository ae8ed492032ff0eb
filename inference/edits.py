"""One intervention at one site, compiled: the numbers that the engine works with, and what it counted."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from inference.conditions import CompiledCondition, compile_condition
from inference.errors import InvalidRequest
from inference.latents import Latents
from inference.types import (
    AffineMap,
    AppliedIntervention,
    Direction,
    Intervention,
    Site,
    SteeringVector,
)

if TYPE_CHECKING:
    from inference.probes import CompiledWatch

INF = float("inf")
TALLIES = 8  # tokens touched in the prompt, in the answer, sums of dose, projection before and after, tokens held
#              back by a condition, sum of what the condition read, sum of the activation that a feature's edit read


@dataclass
class Edit:
    """One intervention at one site. `index` is the block after which it acts.

    Without `second` and `map` it is h + clamp(a + b * (u.h), low, high) * w with u = `read` and w = `write`.
    With `second`, a direction orthogonal to u, h is turned in their plane until it stands at `a` radians from u.
    With `map`, it is h + write.T @ (read @ h + bias), the strength being part of the map's write.
    With `latent`, an activation takes the place of u.h in the clamp. `gate` is the watch that it waits for.
    """

    index: int
    site: Site
    source: Intervention
    residual_norm: float | None
    read: np.ndarray  # float32[d_model], unit norm
    write: np.ndarray  # float32[d_model]
    a: float = 0.0
    b: float = 0.0
    low: float = -INF
    high: float = INF
    second: np.ndarray | None = None  # float32[d_model], unit norm
    map: AffineMap | None = None
    latent: Latents | None = None  # one of them
    gate: CompiledWatch | None = None
    reference: float | None = None
    condition: CompiledCondition | None = None
    answer_at: int = 0  # the position of the row's first generated token
    tally: list[float] = field(default_factory=lambda: [0.0] * TALLIES)

    def afresh(self) -> Edit:
        """The same for another row: nothing counted yet, and a condition of its own."""
        return replace(self, condition=self.condition and replace(self.condition), tally=[0.0] * TALLIES)

    @property
    def key(self) -> Hashable:
        """Equal for edits that do the same to the same tokens of a prompt."""
        arrays = [self.read, self.write, self.second]
        if self.map is not None:
            arrays += [self.map.read, self.map.write, self.map.bias]
        numbers = self.a, self.b, self.low, self.high, self.source.norm_preserving
        content = tuple(None if x is None else x.tobytes() for x in arrays)
        read = self.source.feature, self.latent and self.latent.key
        waits = self.condition and self.condition.key, self.gate and self.gate.key
        return self.index, content, numbers, self.source.positions, read, waits

    @property
    def on_prompt(self) -> bool:
        """Whether it may touch tokens of the prompt."""
        gate = self.gate.source.positions.prompt if self.gate else True
        return self.source.positions.prompt and gate

    def applied(self) -> AppliedIntervention:
        prompt, generated, dose, before, after, held, value, activation = self.tally
        n = max(prompt + generated, 1.0)
        return AppliedIntervention(
            vector_id=self.source.vector_id,
            operation=self.source.operation,
            hook_name=self.site.hook_name,
            strength=self.source.strength,
            unit=self.source.unit,
            residual_norm=self.residual_norm,
            prompt_tokens=int(prompt),
            generated_tokens=int(generated),
            mean_dose=dose / n,
            projection_before=before / n,
            projection_after=after / n,
            reference=self.reference,
            norm_preserving=self.source.norm_preserving,
            schedule=self.source.schedule,
            condition=self.condition.applied(prompt + generated, held, value) if self.condition else None,
            feature=self.source.feature,
            activation=activation / n if self.latent else None,
            watch=self.gate.source.name if self.gate else None,
        )


def compile_intervention(
    source: Intervention,
    vector: SteeringVector | None,
    n_layers: int,
    d_model: int,
    condition_vector: SteeringVector | None = None,
) -> list[Edit]:
    """Resolve one intervention to edits, one per site.

    `vector` is what `source.vector_id` names, `condition_vector` what its condition's does.
    Raises InvalidRequest when anything cannot be honoured exactly.
    """
    if vector is None:
        directions: tuple[Direction, ...] = source.directions
    else:
        directions = tuple(vector.at(layer) for layer in source.layers)
    check_schedule(source)
    edits = [_edit(source, vector, direction, n_layers, d_model) for direction in directions]
    if source.condition is not None:
        for edit in edits:
            edit.condition = compile_condition(source, edit.index, condition_vector, n_layers, d_model)
    return edits


def check_schedule(source: Intervention) -> None:
    schedule = source.schedule
    if schedule is None:
        return
    if schedule.tokens < 1:
        raise InvalidRequest("bad_schedule", "A schedule needs a number of tokens of 1 or more.")
    if not source.positions.generated:
        raise InvalidRequest(
            "bad_schedule",
            "A schedule concerns generated tokens, which this intervention leaves alone. "
            "Let it steer generated tokens, or leave the schedule out.",
        )


def _edit(
    source: Intervention, vector: SteeringVector | None, direction: Direction, n_layers: int, d_model: int
) -> Edit:
    site, values = direction.site, np.asarray(direction.values, dtype=np.float32)
    if not 0 <= site.layer < n_layers:
        raise InvalidRequest(
            "layer_out_of_range", f"Layer {site.layer} does not exist: this model has layers 0 to {n_layers - 1}."
        )
    if values.shape != (d_model,):
        raise InvalidRequest(
            "wrong_size", f"The direction has {values.size} numbers; this model's residual stream is {d_model} wide."
        )
    length = float(np.linalg.norm(values.astype(np.float64)))
    if not np.isfinite(length) or length == 0.0:
        raise InvalidRequest("bad_direction", "The direction is zero or not finite. Build the vector again.")
    norm = vector.residual_norms.get(site.layer) if vector else None
    unit = (values.astype(np.float64) / length).astype(np.float32)
    index = site.layer if site.point == "resid_post" else site.layer - 1
    edit = Edit(index, site, source, norm, unit, unit)
    if source.operation == "rotate":
        return _rotation(edit, vector.directions if vector else source.directions)
    if source.operation == "affine":
        return _affine(edit, vector, length)
    if source.operation == "ablate":
        edit.b = -source.strength
        return edit
    target = _target(edit)
    if source.operation == "add":
        edit.a, edit.write = target, values if source.unit == "raw" else unit
    else:
        set_to(edit, target)
    return edit


def _target(edit: Edit) -> float:
    source, norm = edit.source, edit.residual_norm
    if source.unit == "raw":
        return source.strength
    if source.unit == "max":
        raise InvalidRequest(
            "bad_unit",
            "Strength in units of the largest activation is for features; a vector has none. Use raw or relative.",
        )
    if norm is None:
        raise InvalidRequest(
            "no_residual_norm",
            f"Relative strength needs the residual norm at {edit.site.hook_name}, which this direction does not carry. "
            "Use unit 'raw', or a stored vector.",
        )
    return source.strength * norm


def set_to(edit: Edit, target: float) -> None:
    """Clamp, cap or floor what the edit reads to `target`."""
    edit.a, edit.b = target, -1.0
    edit.high = 0.0 if edit.source.operation == "cap" else INF
    edit.low = 0.0 if edit.source.operation == "floor" else -INF


def _affine(edit: Edit, vector: SteeringVector | None, length: float) -> Edit:
    found = {m.site.layer: m for m in vector.maps} if vector else {}
    if (learnt := found.get(edit.site.layer)) is not None and edit.site.point == "resid_post":
        if learnt.read.shape[1] != edit.read.size:
            raise InvalidRequest("wrong_size", "The vector's affine map is not as wide as this model. Build it again.")
        write = (learnt.write.astype(np.float64) * edit.source.strength).astype(np.float32)
        edit.map = AffineMap(learnt.site, learnt.read, write, learnt.bias)
        edit.write = np.zeros_like(edit.read)
        return edit
    reference = vector.references.get(edit.site.layer) if vector else None
    if reference is None:
        raise InvalidRequest(
            "no_reference",
            f"Affine steering at {edit.site.hook_name} counts from where the negative examples lie, which this "
            "direction does not carry. Build the vector again, or use clamp.",
        )
    edit.reference = reference
    set_to(edit, reference + edit.source.strength * length)
    return edit


def _rotation(edit: Edit, directions: Sequence[Direction]) -> Edit:
    second = _second_direction(edit.read, directions)
    if second is None:
        raise InvalidRequest(
            "no_plane",
            "Rotation needs a second direction, which comes from how the vector differs between layers; this one has "
            "a single layer, or the same direction in all. Use a vector with more layers, or another operation.",
        )
    edit.a, edit.second = math.radians(edit.source.strength), second
    edit.write = np.zeros_like(edit.read)
    return edit


def _second_direction(unit: np.ndarray, directions: Sequence[Direction]) -> np.ndarray | None:
    """The first principal component (centred) of the unit directions of all layers, made orthogonal to `unit`.

    Its largest number is positive, so that the sign is always the same. None where there is none.
    """
    lines = np.stack([np.asarray(d.values, dtype=np.float64) for d in directions])
    lines = lines / np.maximum(np.linalg.norm(lines, axis=1, keepdims=True), 1e-30)
    lines = lines - lines.mean(axis=0)
    first = np.linalg.svd(lines, full_matrices=False)[2][0]
    if np.abs(lines @ first).max() < 1e-4:
        return None
    u = unit.astype(np.float64)
    rest = first - (first @ u) / (u @ u) * u
    size = float(np.linalg.norm(rest))
    if size < 1e-4:
        return None
    rest = rest / size
    return (rest * math.copysign(1.0, float(rest[np.abs(rest).argmax()]))).astype(np.float32)
