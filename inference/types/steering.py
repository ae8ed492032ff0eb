"""How a request steers: interventions with where, how long and on what condition they act, and what is watched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from inference.types.vectors import Direction, Site
from inference.wire import Wire

Operation = Literal["add", "ablate", "clamp", "cap", "floor", "affine", "rotate"]
Unit = Literal["raw", "relative", "max"]
WatchAction = Literal["observe", "steer", "stop", "regenerate"]


@dataclass(frozen=True)
class Positions(Wire):
    """Which tokens an intervention touches.

    `start` and `stop` are a half-open window over absolute positions, 0 being the first prompt token; None is open.
    `special` says whether the tokenizer's special tokens (BOS, chat markers) are touched too.
    """

    prompt: bool = True
    generated: bool = True
    start: int | None = None
    stop: int | None = None
    special: bool = True


@dataclass(frozen=True)
class Schedule(Wire):
    """How much of an edit the g-th generated token gets, g from 0; the prompt's tokens get all of it.

    first: all for g < tokens, none after. ramp: (g + 1) / tokens, at most 1. decay: 0.5 ** (g / tokens).
    A share s of an edit that makes h into f(h) is h + s (f(h) - h); of a rotation, s of its angle.
    """

    kind: Literal["first", "ramp", "decay"]
    tokens: int


@dataclass(frozen=True, eq=False)
class Condition(Wire):
    """Steer only where `resid_post` of `layer` lies on one side of a threshold along a direction (CAST, 2409.05907).

    The direction c (made unit) is that of the stored vector `vector_id` at `layer`, or `direction`, float32[d_model].
    projection: c.h, raw. cosine: c.h / |h|. h is the residual before any edit at that very site.

    token: decided anew at every token, from that token; `layer` must not lie behind the steered one.
    prompt: decided once, when the prompt has been read, from the mean over its tokens (special ones left out unless
    there are no others) or from its last token; it steers generated tokens only.
    """

    layer: int
    threshold: float
    vector_id: str | None = None
    direction: np.ndarray | None = None
    comparison: Literal["above", "below"] = "above"
    measure: Literal["projection", "cosine"] = "projection"
    decided: Literal["prompt", "token"] = "prompt"
    pooling: Literal["mean", "last"] = "mean"

    @property
    def hook_name(self) -> str:
        return Site(self.layer).hook_name


@dataclass(frozen=True)
class FeatureRef(Wire):
    """A latent of a sparse autoencoder: `source` is the id of a `SourceInfo`, `index` counts from 0."""

    source: str
    index: int


@dataclass(frozen=True, eq=False)
class Intervention(Wire):
    """One edit of the residual stream of one row, with direction v, unit direction u and residual h.

    add: h + strength * v (raw), or h + strength * norm * u (relative, norm = median residual norm at the site).
    ablate: h - strength * (u.h) u; strength 1 removes the component.
    clamp: sets u.h to strength (raw) or strength * norm (relative).
    cap, floor: as clamp, but only where u.h is larger, or smaller.
    affine: sets u.h to reference + strength * |v| (ACE, 2411.09003): 0 is where the negative examples lie, 1 where the
        positive ones do. A vector with a map at the site: h + strength * write.T @ (read @ h + bias).
    rotate: turns h within the plane of u and a second direction until it stands at `strength` degrees from u, its
        length kept (2510.26243): 0 is along u, 90 has none of it, 180 is against it. The second direction is the
        first principal component of the vector's directions over its layers.
    `unit` has no meaning for ablate, affine and rotate. `norm_preserving`: after the edit h gets its old length.

    Name a stored vector by `vector_id` with the `layers` to use, give `directions` themselves, or name a `feature`.
    Several interventions on one layer act in the order given.

    A feature acts at its SAE's site, with decoder row d and activation a; the SAE's error stays untouched. Where an SAE
    scales each token that it reads, a change of a is worth as much as that scale makes it.
    add: h + strength * d. clamp: h + (strength - a) * d, floor and cap likewise where a is smaller, or larger.
    ablate: h - strength * a * d. Unit `max` counts in the largest activation that was seen of the feature; `relative`,
    for add alone, in residual norms along d made unit. Other operations are refused.
    Features of one source that follow one another at a site are set at once: each reads a from the residual as it was
    before the first of them, as if the latents were set and decoded together. A vector between them, a feature that was
    named already, and `norm_preserving` begin a new reading.
    """

    operation: Operation = "add"
    strength: float = 1.0
    unit: Unit = "raw"
    positions: Positions = Positions()
    vector_id: str | None = None
    layers: tuple[int, ...] = ()
    directions: tuple[Direction, ...] = ()
    norm_preserving: bool = False
    condition: Condition | None = None
    schedule: Schedule | None = None
    feature: FeatureRef | None = None

    @property
    def vector_ids(self) -> tuple[str, ...]:
        """The stored vectors that it needs."""
        named = self.vector_id, self.condition.vector_id if self.condition else None
        return tuple(dict.fromkeys(i for i in named if i is not None))


@dataclass(frozen=True, eq=False)
class Probe(Wire):
    """A linear reading of one token: weights.h + bias over `resid_post` of `layer`, or the same over SAE latents.

    Give `weights`, float32[d_model], or `features` of one source whose site is that layer, with their
    `feature_weights`. One feature with weight 1 and bias 0 is that feature's activation.
    """

    layer: int
    weights: np.ndarray | None = None
    features: tuple[FeatureRef, ...] = ()
    feature_weights: tuple[float, ...] = ()
    bias: float = 0.0


@dataclass(frozen=True, eq=False)
class Watch(Wire):
    """Read a probe at every token of `positions`, and act where its score lies above `threshold`.

    The score of a token is read at the probe's site before any edit there. Without a threshold it is only told.
    steer: the `interventions`, none at a site before the probe's, act on that token; with `dose` "proportional" each
    is multiplied by min((score - threshold) / scale, 1). stop: the row ends with reason "watch" and without the token
    that fired. regenerate: the last `span` tokens are written again, at most `attempts` times, then the row ends as
    with stop; what is written is delivered `span` tokens late, so that nobody sees what is taken back. `force`: the
    interventions act on all of `positions`, whatever the score.
    """

    name: str
    probe: Probe
    threshold: float | None = None
    action: WatchAction = "observe"
    interventions: tuple[Intervention, ...] = ()
    dose: Literal["fixed", "proportional"] = "fixed"
    scale: float = 1.0
    span: int = 16
    attempts: int = 3
    force: bool = False
    positions: Positions = Positions(special=False)
