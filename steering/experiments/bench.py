"""What a recipe may ask of the model. Recipes know this and nothing of rows, processes or pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from inference.types import Intervention, Message, SamplingParams, ScoreItem


@dataclass(frozen=True)
class Prompt:
    """One message of a chat, or a text to continue. `system` goes before either."""

    text: str
    chat: bool = True
    system: str = ""

    def messages(self) -> tuple[Message, ...] | None:
        if not self.chat:
            return None
        return (*((Message("system", self.system),) if self.system else ()), Message("user", self.text))

    def item(self, *continuations: str) -> ScoreItem:
        """The question how likely the unsteered model finds these continuations."""
        return ScoreItem(continuations, messages=self.messages(), prompt=self.plain())

    def plain(self) -> str | None:
        if self.chat:
            return None
        return f"{self.system}\n\n{self.text}" if self.system else self.text


@dataclass(frozen=True, eq=False)
class Ask:
    """A completion that is wanted. `group` and `place` name the point in its experiment."""

    group: str
    place: int
    prompt: Prompt
    sampling: SamplingParams
    interventions: tuple[Intervention, ...] = ()


@dataclass(frozen=True)
class Written:
    """`stopped`: by itself, before the limit. `applied` is the engine's own account of what the interventions did."""

    text: str
    tokens: int
    stopped: bool
    applied: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Likelihood:
    """Log-probabilities in nats and numbers of tokens, by continuation."""

    logprobs: tuple[float, ...]
    tokens: tuple[int, ...]

    @property
    def surprise(self) -> float:
        """Nats per token of the first continuation; 0 for an empty one."""
        return -self.logprobs[0] / self.tokens[0] if self.tokens[0] else 0.0


class Bench(Protocol):
    """Everything asked for at once shares batches. What was measured before is not measured again."""

    async def complete(self, asks: Sequence[Ask]) -> list[Written]: ...

    async def read(self, items: Sequence[ScoreItem], *, counted: bool = False) -> list[Likelihood]:
        """How likely the model finds each continuation; an empty one has no tokens and is not asked about.

        `counted` items are points of the experiment's progress.
        """
        ...

    async def diverge(self, texts: Sequence[str], interventions: tuple[Intervention, ...]) -> list[dict[str, Any]]:
        """Per text, teacher-forced: kl (nats per token, steered from base), top1, nll_base, nll_steered, tokens."""
        ...

    async def keep(self, group: str, scores: Sequence[dict[str, Any]]) -> None:
        """Write down what was made of the points of a group, by place."""
        ...

    async def report(self, findings: dict[str, Any]) -> None:
        """What is known so far, for whoever looks."""
        ...

    def expect(self, points: int, note: str = "") -> None:
        """How many points there will be in all."""
        ...
