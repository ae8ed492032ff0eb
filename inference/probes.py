"""Probes and watches, compiled: what is read of every token of a row, and which edits wait for it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from inference.compiling import Find, check_positions, edits_of
from inference.edits import Edit
from inference.errors import InvalidRequest
from inference.features import latents_of, open_source
from inference.latents import AS_IT_IS, Latents
from inference.types import Probe, Watch

if TYPE_CHECKING:
    from inference.models.loader import LoadedModel

MAX_FEATURES = 64
MAX_WATCHES = 16


@dataclass(eq=False)
class CompiledProbe:
    """A reading of one token: bias + sum of weights[i] * activation[i] of `latents`, at `resid_post` of block `index`.

    Of a probe on residuals there is one row, read as it is.
    """

    source: Probe
    index: int  # -1: the embedding
    latents: Latents
    weights: np.ndarray  # float32[n]
    bias: float

    @cached_property
    def key(self) -> Hashable:
        """Equal for probes that read the same."""
        return self.index, self.latents.key, self.weights.tobytes(), self.bias


@dataclass(eq=False)
class CompiledWatch:
    """A watch of one row. `edits` are those of its interventions, gated by the probe; each has `gate` set to this."""

    source: Watch
    probe: CompiledProbe
    edits: list[Edit] = field(default_factory=list)

    @cached_property
    def key(self) -> Hashable:
        """Equal for watches that read the same of the same tokens and give the same doses."""
        w = self.source
        return self.probe.key, w.threshold, w.dose, w.scale, w.force, w.positions

    def dose(self, score: float) -> float:
        """The share of its interventions that a token of this score gets, 0 to 1."""
        w = self.source
        if w.force:
            return 1.0
        if w.threshold is None or not score > w.threshold:
            return 0.0
        return 1.0 if w.dose == "fixed" else min((score - w.threshold) / w.scale, 1.0)


def compile_probe(probe: Probe, model: LoadedModel) -> CompiledProbe:
    """Raises InvalidRequest or NotFound."""
    if (probe.weights is None) == (not probe.features):
        raise InvalidRequest("one_source", "A probe needs either weights or features, not both.")
    if not np.isfinite(probe.bias):
        raise _not_finite()
    if probe.weights is not None:
        return _on_residuals(probe, np.asarray(probe.weights, dtype=np.float32), model)
    return _on_features(probe, model)


def _on_residuals(probe: Probe, weights: np.ndarray, model: LoadedModel) -> CompiledProbe:
    if not 0 <= probe.layer < model.n_layers:
        raise InvalidRequest(
            "layer_out_of_range",
            f"The probe's layer {probe.layer} does not exist: this model has layers 0 to {model.n_layers - 1}.",
        )
    if weights.shape != (model.d_model,):
        raise InvalidRequest(
            "wrong_size",
            f"The probe has {weights.size} weights; this model's residual stream is {model.d_model} wide.",
        )
    if not np.isfinite(weights).all():
        raise _not_finite()
    read = Latents((0,), weights[None], np.array([AS_IT_IS], dtype=np.float32))
    return CompiledProbe(probe, probe.layer, read, np.ones(1, dtype=np.float32), probe.bias)


def _on_features(probe: Probe, model: LoadedModel) -> CompiledProbe:
    ids = {f.source for f in probe.features}
    if len(ids) > 1:
        raise InvalidRequest(
            "one_source",
            f"A probe reads features of one source, not of {len(ids)}. Make a watch for each, or choose one source.",
        )
    if len(probe.features) > MAX_FEATURES:
        raise InvalidRequest("too_many_features", f"A probe reads at most {MAX_FEATURES} features. Leave some out.")
    weights = np.array(probe.feature_weights, dtype=np.float32)
    if weights.shape != (len(probe.features),):
        raise InvalidRequest(
            "wrong_size", f"The probe has {len(probe.features)} features and {weights.size} weights. Give one for each."
        )
    if not np.isfinite(weights).all():
        raise _not_finite()
    latents, rows = latents_of(open_source(ids.pop(), model), tuple(f.index for f in probe.features))
    if rows.layer is None:
        raise InvalidRequest(
            "probe_site",
            f"{probe.features[0].source} does not read the residual stream, which alone is read while text is written. "
            "Use a source at resid_post or resid_pre.",
        )
    if probe.layer != rows.layer:
        raise InvalidRequest(
            "probe_site",
            f"The probe names layer {probe.layer}, but {probe.features[0].source} reads resid_post of layer "
            f"{rows.layer}. Name that one.",
        )
    return CompiledProbe(probe, rows.layer, latents, weights, probe.bias)


def _not_finite() -> InvalidRequest:
    return InvalidRequest("bad_direction", "The probe holds numbers that are not finite. Fit it again.")


def compile_watch(watch: Watch, find: Find, model: LoadedModel) -> CompiledWatch:
    """Check and compile. Raises InvalidRequest or NotFound when anything cannot be honoured exactly."""
    _check(watch)
    made = CompiledWatch(watch, compile_probe(watch.probe, model))
    if watch.action != "steer":
        return made
    made.edits = edits_of(watch.interventions, model, find)
    for edit in made.edits:
        if edit.index < made.probe.index and not watch.force:
            raise InvalidRequest(
                "watch_after_edit",
                f"The watch {watch.name!r} reads layer {made.probe.index}, and cannot decide on steering layer "
                f"{edit.index} before it. Steer layer {made.probe.index} or a later one, or read an earlier one.",
            )
        edit.gate = made
    return made


def checked_watches(watches: tuple[Watch, ...]) -> tuple[Watch, ...]:
    """Raises InvalidRequest for too many of them, and for names that are not told apart."""
    if len(watches) > MAX_WATCHES:
        raise InvalidRequest("too_many_watches", f"At most {MAX_WATCHES} watches fit one request. Leave some out.")
    if len({w.name for w in watches}) < len(watches):
        raise InvalidRequest("same_name", "Two watches have one name. Give each its own.")
    return watches


def _check(watch: Watch) -> None:
    numbers = watch.scale, 0.0 if watch.threshold is None else watch.threshold
    if not np.isfinite(numbers).all() or watch.scale <= 0:
        raise InvalidRequest("bad_threshold", "A watch needs a finite threshold, and a scale above 0.")
    check_positions(watch.positions, "watch")
    if watch.action == "steer" and not watch.interventions:
        raise InvalidRequest(
            "nothing_to_steer", f"The watch {watch.name!r} is to steer, but has no interventions. Give at least one."
        )
    if watch.interventions and watch.action != "steer":
        raise InvalidRequest(
            "interventions_unused",
            f"The watch {watch.name!r} has interventions, which its action {watch.action} does not use. "
            "Leave them out, or choose the action steer.",
        )
    if watch.action != "observe" and watch.threshold is None and not watch.force:
        raise InvalidRequest(
            "no_threshold", f"The watch {watch.name!r} is to {watch.action}, but has no threshold. Give one."
        )
