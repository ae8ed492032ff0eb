"""One question to the model, asked again while the model side is away, busy or restarting. Knows no database."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from inference.client import Inference
from inference.errors import KINDS, InferenceError
from inference.types import (
    Divergence,
    Failed,
    Finished,
    GenerationRequest,
    Intervention,
    JobRequest,
    ModelInfo,
    Result,
    Score,
    ScoreItem,
    Started,
    Token,
)
from steering.experiments.bench import Ask

PATIENCE_SECONDS = 600.0  # how long the model side may be away before an experiment gives up
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
PASSING = ("busy", "unavailable")  # kinds of failure that go by
LOST = ("worker_lost", "events_lost", "redis_unreachable", "shutting_down", "no_answer")  # codes of those that do too


class Asking:
    """`waiting` hears the reason while an answer is waited for again."""

    def __init__(self, client: Inference, model: ModelInfo, waiting: Callable[[str], None]):
        self._client, self._model, self._waiting = client, model, waiting

    async def complete(self, ask: Ask) -> dict[str, Any]:
        return await self._insist(lambda: self._complete(ask))

    async def score(self, items: tuple[ScoreItem, ...]) -> list[dict[str, Any]]:
        found = await self._insist(lambda: self._run(Score(_new_id(), items, self._model.id)))
        return [{"logprobs": item["logprobs"], "tokens": item["tokens"]} for item in found["items"]]

    async def diverge(self, texts: tuple[str, ...], interventions: tuple[Intervention, ...]) -> list[dict[str, Any]]:
        found = await self._insist(lambda: self._run(Divergence(_new_id(), texts, interventions, self._model.id)))
        return list(found["texts"])

    async def _insist(self, ask: Callable[[], Any]) -> Any:
        """Raises InferenceError for what will not go by, and for what did not within PATIENCE_SECONDS."""
        since, pause = time.monotonic(), FIRST_PAUSE
        while True:
            try:
                return await ask()
            except InferenceError as error:
                passing = error.kind in PASSING or error.code in LOST
                if not passing or time.monotonic() - since > PATIENCE_SECONDS:
                    raise
                self._waiting(error.message)
                await asyncio.sleep(min(error.retry_after or pause, LONGEST_PAUSE))
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _complete(self, ask: Ask) -> dict[str, Any]:
        request = GenerationRequest(
            _new_id(),
            self._model.id,
            messages=ask.prompt.messages(),
            prompt=ask.prompt.plain(),
            sampling=ask.sampling,
            interventions=ask.interventions,
        )
        text, prompt_tokens = "", 0
        async with aclosing(self._client.generate(request)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Failed):
                    raise _error(event)
                if isinstance(event, Started):
                    prompt_tokens = event.prompt_tokens
                elif isinstance(event, Token):
                    text += event.text
                elif isinstance(event, Finished):
                    if event.reason == "cancelled":
                        raise InferenceError("cancelled", "The model side ended this before it was done. Resume it.")
                    return _completed(event, text + event.text, prompt_tokens)
        raise InferenceError("no_end", "The model side stopped without an end. Resume the experiment.")

    async def _run(self, job: JobRequest) -> dict[str, Any]:
        async with aclosing(self._client.run(job)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Failed):
                    raise _error(event)
                if isinstance(event, Result):
                    return event.payload
        raise InferenceError("no_result", "The model side stopped without a result. Resume the experiment.")


def _completed(event: Finished, text: str, prompt_tokens: int) -> dict[str, Any]:
    applied = [
        {"dose": round(a.mean_dose, 4), "before": round(a.projection_before, 4), "after": round(a.projection_after, 4)}
        for a in event.receipt.applied
    ]
    return {
        "text": text,
        "tokens": event.usage.completion_tokens,
        "prompt_tokens": event.usage.prompt_tokens or prompt_tokens,
        "stopped": event.reason == "stop",
        "applied": applied,
    }


def _new_id() -> str:
    return f"experiment-{uuid.uuid4().hex}"


def _error(event: Failed) -> InferenceError:
    kind = KINDS.get(event.kind, InferenceError)
    return kind(event.code, event.message, retry_after=event.retry_after)
