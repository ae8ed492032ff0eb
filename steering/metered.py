"""An inference client that counts. Everything the product asks of a model passes here, whichever app asks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from inference.client import Inference
from inference.types import Event, Failed, Finished, GenerationRequest, JobRequest, Result, Token
from steering import metrics


def metered(client: Inference) -> Inference:
    return cast(Inference, Metered(client))


class Metered:
    """Passes everything on to `client`; what is not counted is its own."""

    def __init__(self, client: Inference):
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        began, first, end = time.monotonic(), True, "left"
        metrics.streams.inc()
        try:
            async with aclosing(self._client.generate(request)) as events:  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, Token):
                        if first:
                            first = False
                            metrics.first_token_seconds.observe(time.monotonic() - began)
                    elif isinstance(event, Finished | Failed):
                        end = _count_end(event)
                    yield event
        finally:
            metrics.streams.dec()
            metrics.completions.labels(end).inc()

    async def run(self, job: JobRequest) -> AsyncIterator[Event]:
        end = "left"
        try:
            async with aclosing(self._client.run(job)) as events:  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, Result):
                        end = "done"
                    elif isinstance(event, Failed):
                        end = "failed"
                        metrics.errors.labels(event.code).inc()
                    yield event
        finally:
            metrics.job_ends.labels(end).inc()


def _count_end(event: Finished | Failed) -> str:
    if isinstance(event, Failed):
        metrics.errors.labels(event.code).inc()
        return "failed"
    metrics.tokens.labels("prompt").inc(event.usage.prompt_tokens)
    metrics.tokens.labels("completion").inc(event.usage.completion_tokens)
    return event.reason
