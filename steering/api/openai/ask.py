"""What a request asks, whichever of the three ways it came."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from inference.types import Constraint, Direction, FeatureRef, Message, Operation, Positions, Schedule, Unit
from steering.api.openai.formats import Format
from steering.api.openai.tool_fields import ToolsAsk
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
class DraftAsk:
    """`model` is a companion's id, "" looks up in the prompt. `tokens` 0 leaves it to the engine how many to guess."""

    model: str = ""
    tokens: int = 0


@dataclass(frozen=True)
class MemberAsk:
    """`model` is "" or "default" for the model asked for, or a companion's id; either may go on with `::preset`."""

    model: str = ""
    weight: float = 1.0
    steering: SteeringAsk | None = None
    param: str = "ensemble"


@dataclass(frozen=True)
class EnsembleAsk:
    members: tuple[MemberAsk, ...]
    combine: Literal["mixture", "product"] = "mixture"


@dataclass(frozen=True)
class PolicyAsk:
    """A policy given whole, or one that is stored, by its id or name."""

    policy: dict[str, Any] | None
    policy_id: str
    include_trace: bool


@dataclass(frozen=True)
class Ask:
    """`sampling` has the fields that were set, by the names of SamplingParams; a preset's defaults fill the others.

    `kind` is where prompts lie in the body: "messages", "prompt" or "input". `best_of` answers are written for each
    prompt and the `n` best of them given; 0 gives all.
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
    format: Format | None = None
    tools: ToolsAsk | None = None
    draft: DraftAsk | None = None
    ensemble: EnsembleAsk | None = None
    best_of: int = 0
    method: str = ""  # that `sampling` was settled by
    policy: PolicyAsk | None = None

    @property
    def rows(self) -> int:
        """Answers that are written for each prompt."""
        return self.best_of or self.n

    @property
    def constraint(self) -> Constraint | None:
        """Raises ApiError where tools and the answer's form exclude each other."""
        if self.tools:
            return self.tools.constraint(self.format)
        return self.format.constraint if self.format else None

    @property
    def constraint_param(self) -> str:
        return self.format.param if self.format and not self.tools else "tools"
