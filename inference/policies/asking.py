"""What a run asks of a model, and how it is asked over `inference.client`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from inference.client import Inference
from inference.policies.schema import SteeringPart
from inference.types import Constraint, Draft, Ensemble, Intervention, Message, Receipt, SamplingParams


@dataclass(frozen=True, eq=False)
class Wanted:
    """One completion. Give `prompt`, a text to go on from, or `messages`. `model` "" is the one of the asker."""

    sampling: SamplingParams
    prompt: str | None = None
    messages: tuple[Message, ...] | None = None
    interventions: tuple[Intervention, ...] = ()
    constraint: Constraint | None = None
    draft: Draft | None = None
    ensemble: Ensemble | None = None
    model: str = ""


@dataclass(frozen=True, eq=False)
class Completion:
    """What was written. `logprobs` are the model's own, one per token. `seconds` from sending to the end.

    `cut`: "latency" where the deadline ended it, "pruned" where the others were likelier.
    """

    text: str
    reason: str
    prompt_tokens: int
    completion_tokens: int
    logprobs: tuple[float, ...] = ()
    receipt: Receipt | None = None
    seconds: float = 0.0
    first_seconds: float | None = None
    cut: str = ""

    @property
    def mean_logprob(self) -> float | None:
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else None


@dataclass(frozen=True)
class Prune:
    """When each has written `after` tokens, or ended, the `keep` with the highest mean log-probability go on."""

    after: int
    keep: int


@dataclass(frozen=True)
class About:
    """The model that answers. `companions` share its tokenizer; `served` are the ids of all models that can be asked."""

    model: str
    revision: str = ""
    chat: bool = True
    companions: tuple[str, ...] = ()
    served: tuple[str, ...] = ()


class Asker(Protocol):
    """Everything asked for in one call is sent at once, so that it shares the batch. Raises InferenceError."""

    async def about(self) -> About: ...

    async def complete(
        self, wanted: Sequence[Wanted], *, deadline: float | None = None, prune: Prune | None = None
    ) -> list[Completion]:
        """In the order given. At `deadline`, by `time.monotonic`, what still writes is cancelled and given as it is."""
        ...

    async def steering(self, part: SteeringPart) -> tuple[Intervention, ...]:
        """What an enabled part means: who may use what is decided here. `scoped` does layers and tokens."""
        ...

    async def judge(self, question: str, answers: Sequence[str]) -> list[float]:
        """How likely each answer is true, 0 to 1, by the model itself. See `verifiers.factuality` for its worth."""
        ...


Resolve = Callable[[SteeringPart], Awaitable[tuple[Intervention, ...]]]


def client_asker(client: Inference, model: str = "", resolve: Resolve | None = None) -> Asker:
    """Ask over a client. `resolve` finds stored vectors and presets; directions in the policy need none."""
    raise NotImplementedError
