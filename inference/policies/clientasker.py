"""Asks over `inference.client`: a round is sent at once, and ended where its time is up or others are likelier."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from inference import errors
from inference.client import Inference
from inference.judging import p_yes, yes_item
from inference.policies.asking import About, Completion, Prune, Resolve, Wanted
from inference.policies.schema import SteeringPart
from inference.policies.steering import given_directions, stored
from inference.types import Failed, Finished, GenerationRequest, Intervention, Result, Score, Started, Token

GRACE_SECONDS = 0.1  # for what was cancelled to say how it ended
BUSY_TRIES, BUSY_SECONDS = 5, 0.5
NOTHING = "N/A"  # an answer without content
TRUE = 'Asked "{question}", somebody answered with the text above. Is the answer true?'


@dataclass(eq=False)
class _Row:
    """A completion as it is written."""

    wanted: Wanted
    id: str
    sent: float
    prompt_tokens: int = 0
    pieces: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    first: float | None = None
    ended: float | None = None
    end: Finished | None = None
    cut: str = ""
    keep: int | None = None  # tokens that count, where it was pruned

    @property
    def done(self) -> bool:
        return self.end is not None or bool(self.cut)

    def mean(self, over: int) -> float:
        some = self.logprobs[:over]
        return sum(some) / len(some) if some else -float("inf")

    def completion(self) -> Completion:
        end, ended = self.end, self.ended or time.monotonic()
        text = "".join(self.pieces[: self.keep]) + (end.text if end and self.keep is None else "")
        return Completion(
            text,
            "cancelled" if self.cut or end is None else end.reason,
            self.prompt_tokens,
            end.usage.completion_tokens if end else len(self.pieces),
            tuple(self.logprobs[: self.keep]),
            end.receipt if end else None,
            ended - self.sent,
            None if self.first is None else self.first - self.sent,
            self.cut,
        )


class ClientAsker:
    """`inference.policies.asking.Asker` over a client."""

    def __init__(self, client: Inference, model: str = "", resolve: Resolve | None = None):
        self._client, self._model = client, model
        self._resolve = resolve or stored(client)
        self._about: About | None = None

    async def about(self) -> About:
        if self._about is None:
            info = await self._client.describe(self._model)
            if info.state != "ready":
                raise errors.Unavailable(
                    "model_not_ready", info.problem or "The model is still loading. Try again soon."
                )
            served = tuple(other.id for other in await self._client.models())
            self._about = About(info.id, info.revision, info.has_chat_template, info.companions, served)
        return self._about

    async def steering(self, part: SteeringPart) -> tuple[Intervention, ...]:
        return given_directions(part) if part.vector is not None else await self._resolve(part)

    async def complete(
        self, wanted: Sequence[Wanted], *, deadline: float | None = None, prune: Prune | None = None
    ) -> list[Completion]:
        sent, moved = time.monotonic(), asyncio.Event()
        rows = [_Row(one, uuid.uuid4().hex, sent) for one in wanted]
        tasks = [asyncio.create_task(self._write(row, moved, deadline)) for row in rows]
        watching = asyncio.create_task(self._prune(rows, moved, prune)) if prune else None
        try:
            await self._until_done(rows, tasks, deadline)
        finally:
            for task in (*tasks, *([watching] if watching else [])):
                task.cancel()
            await asyncio.gather(*tasks, *([watching] if watching else []), return_exceptions=True)
        return [row.completion() for row in rows]

    async def judge(self, question: str, answers: Sequence[str]) -> list[float]:
        chat = (await self.about()).chat
        asked = TRUE.format(question=question[-2000:])
        items = tuple(yes_item(asked, text, chat=chat) for text in (*answers, NOTHING))
        job = Score(uuid.uuid4().hex, items, model=self._model)
        async with aclosing(self._client.run(job)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Failed):
                    raise errors.from_wire(event.to_wire())
                if isinstance(event, Result):
                    *found, base = [p_yes(item["logprobs"]) for item in event.payload["items"]]
                    return [_against(chance, base) for chance in found]
        raise errors.Unavailable("judging_ended", "The judge was ended before it was done. Start again.")

    async def _until_done(self, rows: list[_Row], tasks: list[asyncio.Task[None]], deadline: float | None) -> None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        done, waiting = await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()  # raises what went wrong
        if not waiting:
            return
        late = [row for row in rows if not row.done]
        for row in late:
            row.cut, row.ended = "latency", time.monotonic()
        await asyncio.gather(*(self._client.cancel(row.id) for row in late))
        done, _ = await asyncio.wait(waiting, timeout=GRACE_SECONDS)
        for task in done:
            with suppress(errors.InferenceError):  # such as a refusal that came late
                task.result()

    async def _prune(self, rows: list[_Row], moved: asyncio.Event, prune: Prune) -> None:
        while not all(row.done or len(row.logprobs) >= prune.after for row in rows):
            moved.clear()
            await moved.wait()
        order = sorted(rows, key=lambda row: row.mean(prune.after), reverse=True)
        for row in order[prune.keep :]:
            if not row.done:
                row.cut, row.ended, row.keep = "pruned", time.monotonic(), prune.after
                await self._client.cancel(row.id)

    async def _write(self, row: _Row, moved: asyncio.Event, deadline: float | None) -> None:
        """One row to its end. Where the waiting list is full it is sent again, for a while."""
        for attempt in range(BUSY_TRIES):
            try:
                return await self._follow(row, moved)
            except errors.Busy as busy:
                pause = busy.retry_after or BUSY_SECONDS
                over = deadline is not None and time.monotonic() + pause > deadline
                if attempt == BUSY_TRIES - 1 or over:
                    raise
                await asyncio.sleep(pause)

    async def _follow(self, row: _Row, moved: asyncio.Event) -> None:
        async with aclosing(self._client.generate(self._request(row))) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Started):
                    row.prompt_tokens = event.prompt_tokens
                elif isinstance(event, Token):
                    row.first = row.first or time.monotonic()
                    row.pieces.append(event.text)
                    if event.logprob is not None:
                        row.logprobs.append(event.logprob)
                    moved.set()
                elif isinstance(event, Failed):
                    raise errors.from_wire(event.to_wire())
                elif isinstance(event, Finished):
                    row.end, row.ended = event, row.ended or time.monotonic()
                    moved.set()
                    if event.reason == "cancelled" and not row.cut:
                        raise errors.Unavailable(
                            "writing_ended", "A candidate was ended by somebody else. Start again."
                        )

    def _request(self, row: _Row) -> GenerationRequest:
        w = row.wanted
        return GenerationRequest(
            row.id,
            model=w.model or self._model,
            prompt=w.prompt,
            messages=w.messages,
            sampling=w.sampling,
            interventions=w.interventions,
            constraint=w.constraint,
            draft=w.draft,
            ensemble=w.ensemble,
        )


def _against(chance: float, base: float) -> float:
    """The chance in odds against those of an answer without content, as a chance again."""
    here, there = (min(max(p, 1e-6), 1 - 1e-6) for p in (chance, base))
    odds = here / (1 - here) / (there / (1 - there))
    return odds / (1 + odds)
