"""Small questions to the engine that belong to a request which is charged as a whole."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from inference.errors import EngineFault, from_wire
from inference.types import Failed, JobRequest, Result
from steering import gateway


async def asked(request: JobRequest) -> dict[str, Any]:
    """The result's payload. Raises what the engine refuses with."""
    client = await gateway.opened()
    async with aclosing(client.run(request)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Failed):
                raise from_wire(event.to_wire())
            if isinstance(event, Result):
                return event.payload
    raise EngineFault("no_result", "The model side stopped without a result. Try again.")
