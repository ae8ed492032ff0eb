"""An asker without a model: it answers by a script, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from inference.errors import InvalidRequest
from inference.policies.asking import About, Completion, Prune, Wanted
from inference.policies.steering import given_directions
from inference.types import Intervention, Receipt

Say = Callable[[Wanted, int], str | Completion]  # the request, and how many were answered before


def said(text: str, *, logprob: float = -0.1, reason: str = "stop", tokens: int | None = None, **facts) -> Completion:
    n = len(text.split()) if tokens is None else tokens
    return Completion(text, reason, 5, n, (logprob,) * n, Receipt("fake", "1", 0), 0.01, 0.005, **facts)


@dataclass
class Scripted:
    """`say` is a list of answers, the last of which is repeated, or a function. `chances` are the judge's."""

    say: Sequence[str | Completion] | Say = ("fine",)
    about_: About = field(default_factory=lambda: About("fake", "1", True, (), ("fake",)))
    chances: Callable[[str, str], float] = lambda question, answer: 0.9
    refuse: Callable[[Wanted], str] = lambda wanted: ""
    seconds: float = 0.0
    rounds: list[list[Wanted]] = field(default_factory=list)
    prunes: list[Prune | None] = field(default_factory=list)
    judged: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    answered: int = 0

    async def about(self) -> About:
        return self.about_

    async def steering(self, part) -> tuple[Intervention, ...]:
        if part.vector is not None:
            return given_directions(part)
        return (Intervention(strength=part.strength, vector_id=part.vector_id or part.preset, layers=(3,)),)

    async def complete(self, wanted, *, deadline=None, prune=None) -> list[Completion]:
        self.rounds.append(list(wanted))
        self.prunes.append(prune)
        for one in wanted:
            if reason := self.refuse(one):
                raise InvalidRequest("refused", reason)
        late = deadline is not None and time.monotonic() + self.seconds > deadline
        await asyncio.sleep(max(0, min(self.seconds, deadline - time.monotonic())) if deadline else self.seconds)
        found = [self._one(one) for one in wanted]
        return [said(c.text.split()[0], cut="latency", reason="cancelled") for c in found] if late else found

    def _one(self, one: Wanted) -> Completion:
        n = self.answered
        answer = self.say(one, n) if callable(self.say) else self.say[min(n, len(self.say) - 1)]
        self.answered += 1
        done = said(answer) if isinstance(answer, str) else answer
        most = one.sampling.max_tokens
        if done.completion_tokens > most:
            done = said(" ".join(done.text.split()[:most]), reason="length", logprob=done.logprobs[0])
        return done

    async def judge(self, question, answers) -> list[float]:
        self.judged.append((question, tuple(answers)))
        return [self.chances(question, answer) for answer in answers]
