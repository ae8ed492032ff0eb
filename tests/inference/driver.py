"""Run requests against an engine from a test, and look at what came out."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from inference.engine import Engine
from inference.types import (
    TERMINAL,
    Direction,
    Event,
    Failed,
    Finished,
    GenerationRequest,
    Intervention,
    JobRequest,
    Progress,
    Result,
    SamplingParams,
    Site,
    Token,
)


@dataclass
class Listener:
    """Collects the events of one run; `wait` returns when it has ended."""

    events: list[Event] = field(default_factory=list)
    inbox: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)

    def take(self, timeout: float = 60) -> Event:
        event = self.inbox.get(timeout=timeout)
        self.events.append(event)
        return event

    def wait(self, timeout: float = 60) -> Listener:
        while not (self.events and isinstance(self.events[-1], TERMINAL)):
            self.take(timeout)
        return self

    def wait_for_tokens(self, n: int) -> None:
        while len(self.tokens) < n and not (self.events and isinstance(self.events[-1], TERMINAL)):
            self.take()

    @property
    def tokens(self) -> list[int]:
        return [e.token_id for e in self.events if isinstance(e, Token)]

    @property
    def text(self) -> str:
        return "".join(e.text for e in self.events if isinstance(e, Token | Finished))

    @property
    def end(self) -> Event:
        return self.events[-1]

    @property
    def finished(self) -> Finished:
        assert isinstance(self.end, Finished), self.end
        return self.end

    @property
    def failed(self) -> Failed:
        assert isinstance(self.end, Failed), self.end
        return self.end

    @property
    def result(self) -> Result:
        assert isinstance(self.end, Result), self.end
        return self.end

    @property
    def progress(self) -> list[Progress]:
        return [e for e in self.events if isinstance(e, Progress)]


def start(engine: Engine, request: GenerationRequest) -> Listener:
    listener = Listener()
    engine.start(engine.prepare(request), listener.inbox.put)
    return listener


def start_job(engine: Engine, job: JobRequest) -> Listener:
    listener = Listener()
    engine.start_job(job, listener.inbox.put)
    return listener


def alone(engine: Engine, request: GenerationRequest) -> list[int]:
    return start(engine, request).wait().tokens


def together(engine: Engine, requests: Sequence[GenerationRequest], join_every: int = 3) -> list[list[int]]:
    """Each request joins after the one before it has written `join_every` tokens, so that rows come and go."""
    listeners: list[Listener] = []
    for request in requests:
        if listeners:
            listeners[-1].wait_for_tokens(join_every)
        listeners.append(start(engine, request))
    return [listener.wait().tokens for listener in listeners]


def direction(d_model: int, layer: int, seed: int, norm: float = 3.0) -> Direction:
    values = np.random.default_rng(seed).normal(size=d_model)
    return Direction(Site(layer), (values / np.linalg.norm(values) * norm).astype(np.float32))


def add(d_model: int, layer: int, seed: int, strength: float = 1.0) -> Intervention:
    return Intervention(strength=strength, directions=(direction(d_model, layer, seed),))


def request(
    id: str, ids: Iterable[int], *, max_tokens: int = 24, interventions: Sequence[Intervention] = (), **sampling: object
) -> GenerationRequest:
    params = SamplingParams(**{"max_tokens": max_tokens, "temperature": 0.0, "ignore_eos": True, **sampling})  # type: ignore[arg-type]
    return GenerationRequest(id=id, token_ids=tuple(ids), sampling=params, interventions=tuple(interventions))
