"""Many completions at once through a client, as rows of the shared batch, with what they used; ends when left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from inference import errors
from inference.client import Inference
from inference.types import Failed, Finished, GenerationRequest, Token

AT_ONCE = 16  # rows of one recipe in the batch: others want their turn too
TRIES = 5  # while the waiting list is full
PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class Written:
    """`complete` is false where max_tokens cut the text off."""

    text: str
    complete: bool
    prompt_tokens: int
    completion_tokens: int


async def write_all(
    client: Inference, requests: Sequence[GenerationRequest], at_once: int = AT_ONCE
) -> AsyncGenerator[tuple[int, Written], None]:
    """Yield each completion with its place among `requests`, as they end. Raises InferenceError for one that fails."""
    room, done = asyncio.Semaphore(at_once), asyncio.Queue[tuple[int, Written | BaseException]]()

    async def one(place: int, request: GenerationRequest) -> None:
        try:
            async with room:
                done.put_nowait((place, await _patiently(client, request)))
        except Exception as error:
            done.put_nowait((place, error))

    tasks = [asyncio.create_task(one(place, request)) for place, request in enumerate(requests)]
    try:
        for _ in tasks:
            place, found = await done.get()
            if isinstance(found, BaseException):
                raise found
            yield place, found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _patiently(client: Inference, request: GenerationRequest) -> Written:
    for _ in range(TRIES - 1):
        try:
            return await write(client, request)
        except errors.Busy as busy:
            await asyncio.sleep(busy.retry_after or PAUSE_SECONDS)
    return await write(client, request)


async def write(client: Inference, request: GenerationRequest) -> Written:
    """One completion. Raises InferenceError."""
    pieces: list[str] = []
    async with aclosing(client.generate(request)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Token):
                pieces.append(event.text)
            elif isinstance(event, Failed):
                raise errors.from_wire(event.to_wire())
            elif isinstance(event, Finished):
                if event.reason == "cancelled":
                    break
                used = event.usage
                text = "".join(pieces) + event.text
                return Written(text, event.reason == "stop", used.prompt_tokens, used.completion_tokens)
    raise errors.Unavailable("writing_ended", "A completion was ended before it was done. Start again.")
