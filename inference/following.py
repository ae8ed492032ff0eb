"""A job's events to its result, for recipes that ask others."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from inference import errors
from inference.client import Inference
from inference.types import Event, Failed, JobRequest, Progress, Result


async def followed(client: Inference, request: JobRequest) -> AsyncGenerator[Progress | Result, None]:
    """Progress, then one Result, which is the last. Raises InferenceError."""
    async with aclosing(client.run(request)) as events:  # type: ignore[type-var]
        event: Event
        async for event in events:
            if isinstance(event, Failed):
                raise errors.from_wire(event.to_wire())
            if isinstance(event, Progress | Result):
                yield event
            if isinstance(event, Result):
                return
    raise errors.Unavailable("no_result", "The model side stopped without a result. Start again.")
