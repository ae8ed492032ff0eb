"""Work that a program waits for: reserved before it begins, settled to what it used, ended when the program leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from inference.errors import from_wire
from inference.types import Event, Failed, Finished, GenerationRequest, JobRequest, Progress, Result, Started, Token
from steering import draining, gateway
from steering.access.admission import refund, reserve, settle
from steering.access.going_on import CHECK_SECONDS, may_go_on
from steering.access.principal import Principal
from steering.api.openai.rows import Rows, revoked
from steering.database import unless_left
from steering.threads import in_thread

IDLE_SECONDS = 10.0
TEMPLATE_TOKENS = 32  # of each message, besides its text


class Charge:
    """A place and tokens that are held until `end`, which may be called twice. `tokens` bounds what may be used."""

    def __init__(self, who: Principal, work: str, kind: str, model: str, tokens: int, source: str):
        """Synchronous. Raises Denied(429), Busy("draining")."""
        draining.refuse_new_work()
        name = model or gateway.model_info().id
        self._reserved = reserve(who, work=work, kind=kind, model=name, tokens=tokens, source=source)
        self._hold = draining.hold()
        self._ended = False
        self.prompt_tokens = self.completion_tokens = 0

    def end(self) -> None:
        """Charge what was used, or give everything back. Synchronous."""
        if self._ended:
            return
        self._ended = True
        try:
            used = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
            if any(used.values()):
                settle(self._reserved.id, **used)
            else:
                refund(self._reserved.id)
        finally:
            self._hold.release()

    def end_soon(self) -> None:
        """From a loop that must not wait, since whoever waited has left."""
        if not self._ended:
            gateway.spawn(in_thread(self.end)())


async def generate(
    who: Principal, requests: Sequence[GenerationRequest], *, kind: str = "generate", source: str = "compat"
) -> AsyncIterator[tuple[int, Event]]:
    """Events of the rows of one batch, each with its row's number, to the end of all. Leaving early stops them.

    All requests have one id. Raises Denied, InferenceError and ApiError, before the first event or later.
    """
    charge = await unless_left(in_thread(_charge_rows)(who, requests, kind, source), Charge.end_soon)
    rows = Rows(tuple(requests), partial(may_go_on, who), charge.end_soon)
    written, open_rows = [0] * len(requests), len(requests)
    try:
        while open_rows:
            taken = await rows.take(IDLE_SECONDS)
            if taken is None:
                continue
            row, event = taken
            if isinstance(event, Started):
                charge.prompt_tokens += event.prompt_tokens
            elif isinstance(event, Token):
                written[row] += 1
                charge.completion_tokens += 1
            elif isinstance(event, Finished):  # tokens that were held back count too
                charge.completion_tokens += max(0, event.usage.completion_tokens - written[row])
                open_rows -= 1
                if not open_rows:
                    await in_thread(charge.end)()
            yield taken
    finally:
        rows.close()
        charge.end_soon()


async def job(
    who: Principal,
    request: JobRequest,
    *,
    kind: str,
    tokens: int,
    source: str = "compat",
    used: Callable[[dict[str, Any]], int] | None = None,
) -> AsyncIterator[Progress | Result]:
    """Progress…, then the Result. `tokens` is what the job reads at most, and what it is charged once it has begun.

    `used` finds in the payload what it did read.

    Leaving early stops it. Raises Denied and InferenceError.
    """
    charge = await unless_left(in_thread(Charge)(who, request.id, kind, request.model, tokens, source), Charge.end_soon)
    try:
        async with aclosing(_watched(who, request)) as found:  # type: ignore[type-var]
            async for event in found:
                if isinstance(event, Failed):
                    raise from_wire(event.to_wire())
                charge.prompt_tokens = tokens
                if isinstance(event, Result):
                    charge.prompt_tokens = used(event.payload) if used else tokens
                    await in_thread(charge.end)()
                if isinstance(event, Progress | Result):
                    yield event
    finally:
        charge.end_soon()


async def _watched(who: Principal, request: JobRequest) -> AsyncIterator[Event]:
    """The job's events; ends it once its caller is not let in any more."""
    async with aclosing(gateway.inference().run(request)) as source:  # type: ignore[type-var]
        reading = asyncio.ensure_future(anext(source, None))
        try:
            while True:
                await asyncio.wait({reading}, timeout=CHECK_SECONDS)
                if reading.done():
                    event = reading.result()
                    if event is None:
                        return
                    yield event
                    reading = asyncio.ensure_future(anext(source, None))
                elif not await may_go_on(who):
                    raise revoked()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


def _charge_rows(who: Principal, requests: Sequence[GenerationRequest], kind: str, source: str) -> Charge:
    model = gateway.model_info(model=requests[0].model)
    tokens = most_tokens(requests, model.context_length)
    return Charge(who, requests[0].id, kind, requests[0].model or model.id, tokens, source)


def most_tokens(requests: Sequence[GenerationRequest], context: int = 0) -> int:
    """What all rows may read and write at most. No tokenizer is at hand; a token has at least one byte."""
    return sum(min(_prompt_tokens(each), context or 10**9) + each.sampling.max_tokens for each in requests)


def _prompt_tokens(request: GenerationRequest) -> int:
    if request.token_ids:
        return len(request.token_ids)
    if request.messages:
        return sum(len(message.content.encode()) + TEMPLATE_TOKENS for message in request.messages)
    return len((request.prompt or "").encode()) + 2
