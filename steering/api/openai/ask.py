"""What a request asks, whichever of the three ways it came."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inference.types import Direction, FeatureRef, Message, Operation, Positions, Schedule, Unit
from steering.vectors.uses import UseCondition

Prompt = tuple[Message, ...] | str | tuple[int, ...]


@dataclass(frozen=True)
class VectorAsk:
    """A vector of the library, by id or name, at some layers; or directions as they are. None: what is recommended."""

    vector: str = ""
    directions: tuple[Direction, ...] = ()
    layers: tuple[int, ...] = ()
    strength: float | None = None
    unit: Unit | None = None
    operation: Operation | None = None  # the vector's own, which is add unless it was trained for another
    positions: Positions = field(default_factory=Positions)
    norm_preserving: bool = False
    schedule: Schedule | None = None
    condition: UseCondition | None = None  # its vector by id or name


@dataclass(frozen=True)
class FeatureAsk:
    """A feature of an autoencoder, at its own site. Without a strength it is its maximum once, or removed whole."""

    feature: FeatureRef
    strength: float | None = None
    unit: Unit | None = None
    operation: Operation = "add"
    positions: Positions = field(default_factory=Positions)
    norm_preserving: bool = False
    schedule: Schedule | None = None
    condition: UseCondition | None = None  # its vector by id or name


@dataclass(frozen=True)
class SteeringAsk:
    """`strength` multiplies the strengths of all that is asked for, the preset's included."""

    vectors: tuple[VectorAsk, ...] = ()
    features: tuple[FeatureAsk, ...] = ()
    preset: str = ""
    strength: float = 1.0


@dataclass(frozen=True)
class BehaviorsAsk:
    """What to watch for by name. `auto_correct` None: as the preset says, or else yes. `force` are among `names`."""

    names: tuple[str, ...] = ()
    auto_correct: bool | None = None
    force: tuple[str, ...] = ()
    force_all: bool = False


@dataclass(frozen=True)
class Ask:
    """`sampling` has the fields that were set, by the names of SamplingParams; a preset's defaults fill the others.

    `kind` is where prompts lie in the body: "messages", "prompt" or "input".
    """

    model: str
    kind: str
    prompts: tuple[Prompt, ...]
    sampling: dict[str, Any]
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    echo: bool = False
    steering: SteeringAsk | None = None
    behaviors: BehaviorsAsk = BehaviorsAsk()
    given: dict[str, Any] = field(default_factory=dict)  # what an answer repeats of its request
