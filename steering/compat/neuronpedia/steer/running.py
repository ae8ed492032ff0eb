"""From an ask to an answer: the rows of one batch, whose events become one body, or a stream of cumulative ones."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from django.http import HttpResponseBase, StreamingHttpResponse

from inference.types import Event
from steering.access.admission import refuse_if_plain
from steering.access.principal import Principal
from steering.api.openai.frames import STREAM_HEADERS
from steering.compat import running
from steering.compat.neuronpedia.asking import SOURCE, token_limit
from steering.compat.neuronpedia.steer import planning
from steering.compat.neuronpedia.steer.answers import Answer
from steering.compat.neuronpedia.steer.ask import SteerAsk
from steering.compat.neuronpedia.steer.prompts import read_prompt
from steering.compat.neuronpedia.wire import JSON, refusal_of
from steering.threads import in_thread

Body = Callable[[Answer], dict[str, Any]]
Rows = AsyncGenerator[tuple[int, Event], None]
PROMPT_FRAMES = 32  # the first ones, which are small, go out as they come
PACE = 0.1  # seconds between later ones, of which each holds all those before
SHARE = 10  # and no more than this part of the time is spent on writing them


async def begin(who: Principal, ask: SteerAsk, *, source: str = SOURCE) -> tuple[Answer, Rows]:
    """Raises Refusal, InferenceError and Denied; the rows begin when the first event is asked for."""
    model, targets = await in_thread(planning.check)(who, ask)
    await in_thread(refuse_if_plain)(who, ask.max_tokens * len(ask.types))
    prompt = await read_prompt(ask, model, token_limit())
    requests = await planning.requests_of(who, ask, model, targets, prompt)
    rows = running.generate(who, tuple(requests.values()), kind="generate", source=source)
    return Answer(ask, prompt, requests), rows  # type: ignore[return-value]


async def whole(answer: Answer, rows: Rows) -> Answer:
    """The answer once it is complete. A caller that leaves ends the rows."""
    async with aclosing(rows):
        async for row, event in rows:
            answer.take(row, event)
            if answer.ended:  # rows that went on into another turn are stopped by leaving
                break
    return answer


async def answered(who: Principal, ask: SteerAsk, body: Body) -> dict[str, Any] | HttpResponseBase:
    answer, rows = await begin(who, ask)
    if not ask.stream:
        return body(await whole(answer, rows))
    try:
        first = await anext(rows)  # what is refused until then has a status
    except BaseException:
        await rows.aclose()
        raise
    return StreamingHttpResponse(
        frames(answer, first, rows, body), content_type="text/event-stream; charset=utf-8", headers=STREAM_HEADERS
    )


async def frames(answer: Answer, first: tuple[int, Event], rows: Rows, body: Body) -> AsyncIterator[bytes]:
    """Each frame is the whole body so far, and the last one equals the answer without streaming.

    A failure on the way is a frame of its own, which no client takes for an answer: it has no `outputs`.
    """
    async with aclosing(rows):
        try:
            pace = Pace()
            news = answer.take(*first)
            async for row, event in rows:
                news = answer.take(row, event) or news
                if news and pace.due:
                    yield await pace.written(answer, body)
                    news = False
                if answer.ended:
                    break
            if news or not pace.count:
                yield await pace.written(answer, body)
        except Exception as error:
            yield frame(refusal_of(error).body())


class Pace:
    """When the next frame is due. All frames hold everything, so one for each token would cost the square of a text."""

    def __init__(self) -> None:
        self.count, self._next = 0, 0.0

    @property
    def due(self) -> bool:
        return self.count < PROMPT_FRAMES or time.monotonic() >= self._next

    async def written(self, answer: Answer, body: Body) -> bytes:
        began = time.monotonic()
        if self.count < PROMPT_FRAMES:
            found = frame(body(answer))
        else:
            found = await asyncio.to_thread(lambda: frame(body(answer)))
        now = time.monotonic()
        self.count, self._next = self.count + 1, now + max(PACE, SHARE * (now - began))
        return found


def frame(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, **JSON)}\n\n".encode()  # type: ignore[arg-type]
