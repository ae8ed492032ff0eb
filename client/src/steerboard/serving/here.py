"""/v1 over a model in this process: every answer is a row of its batch, whole or streamed."""

from __future__ import annotations

import asyncio
import dataclasses
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from steerboard.local.answers import ENDS, reason_of, told, usage
from steerboard.serving.app import of_error
from steerboard.serving.body import Ask, read
from steerboard.serving.wire import DONE, Answer, Refusal, Streamed, Whole, event, json_of

if TYPE_CHECKING:
    from inference.types import Event, GenerationRequest
    from steerboard.local import Local

ANY_NAME = {"", "default", "mechanex-local", "mechanex-model", "steerboard-local"}

BESIDE_POLICY = {"max_tokens", "fit", "seed"}


@dataclasses.dataclass
class Row:
    """One answer in the making."""

    index: int
    request: GenerationRequest
    pieces: list[str] = dataclasses.field(default_factory=list)
    end: Any = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def reason(self) -> str:
        return reason_of(self.end)


class Here:
    """`corrected` are behaviors that every request is watched for; `name` is what the model may be called as well."""

    def __init__(self, local: Local, corrected: Sequence[str] = (), name: str | None = None):
        self._local, self._corrected = local, list(corrected)
        self._names = {*ANY_NAME, local.model_id, *([name] if name else [])}

    async def models(self) -> Answer:
        one = {"id": self._local.model_id, "object": "model", "created": 0, "owned_by": "steerboard"}
        return Whole({"object": "list", "data": [one]})

    async def post(self, path: str, raw: bytes) -> Answer:
        ask = read(path, json_of(raw))
        if ask.model not in self._names:
            raise Refusal(
                404,
                f"The model {ask.model!r} is not served here; {self._local.model_id!r} is.",
                code="model_not_found",
                param="model",
            )
        if ask.policy:
            return await self._policy(ask)
        rows = await asyncio.to_thread(self._rows, ask)
        if ask.stream:
            return await self._streamed(ask, rows)
        await self._written(rows)
        return Whole(self._whole(ask, rows))

    # ---- rows ----

    def _rows(self, ask: Ask) -> list[Row]:
        fields = dict(ask.fields)
        if self._corrected:
            named = fields.get("behavior_names") or []
            named = [named] if isinstance(named, str) else list(named)
            fields["behavior_names"] = list(dict.fromkeys([*named, *self._corrected]))
        asked = [
            self._local.generation.request(self._prompt(ask, prompt), fields)
            for prompt in ask.prompts
            for _ in range(ask.n)
        ]
        return [Row(place, _seeded(request, place % ask.n)) for place, request in enumerate(asked)]

    def _prompt(self, ask: Ask, prompt: Any) -> Any:
        """A model without a chat template reads what the messages say, with an empty line between."""
        if not ask.chat or self._local.studio.model.has_chat_template:
            return prompt
        return "\n\n".join(message["content"] for message in prompt)

    async def _events(self, row: Row) -> AsyncIterator[Event]:
        """Raises InferenceError. Leaving it ends the row."""
        from inference import errors
        from inference.types import Failed

        async with aclosing(self._local.studio.client.generate(row.request)) as events:  # type: ignore[type-var]
            async for one in events:
                if isinstance(one, Failed):
                    raise errors.from_wire(one.to_wire())
                if one.type in ("token", "finished"):
                    row.pieces.append(one.text)
                if one.type == "finished":
                    row.end = one
                yield one

    async def _written(self, rows: Sequence[Row]) -> None:
        """All to their end; the first failure, or being cancelled, ends the others."""
        try:
            async with asyncio.TaskGroup() as group:
                for row in rows:
                    group.create_task(self._write(row))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _write(self, row: Row) -> None:
        async for _ in self._events(row):
            pass

    # ---- shapes ----

    def _head(self, ask: Ask, *, chunk: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if ask.chat else "text_completion"
        id = f"{'chatcmpl' if ask.chat else 'cmpl'}-{uuid.uuid4().hex}"
        return {"id": id, "object": kind, "created": int(time.time()), "model": self._local.model_id}

    def _whole(self, ask: Ask, rows: Sequence[Row]) -> dict[str, Any]:
        choices = [_choice(ask, row.index, row.text, row.reason) for row in rows]
        return {**self._head(ask, chunk=False), "choices": choices, "usage": _usage(ask, rows), **_told(rows)}

    async def _streamed(self, ask: Ask, rows: list[Row]) -> Answer:
        """The status waits for every row's first event, so that what is refused is refused with its own."""
        inbox: asyncio.Queue[tuple[Row, Any]] = asyncio.Queue()

        async def follow(row: Row) -> None:
            try:
                async for one in self._events(row):
                    inbox.put_nowait((row, one))
            except Exception as error:
                inbox.put_nowait((row, error))

        tasks = [asyncio.create_task(follow(row)) for row in rows]
        early: list[tuple[Row, Any]] = []
        begun: set[int] = set()
        try:
            while len(begun) < len(rows):
                row, one = await inbox.get()
                if isinstance(one, Exception):
                    raise one
                begun.add(row.index)
                early.append((row, one))
        except BaseException:
            _cancel(tasks)
            raise
        return Streamed(self._pieces(ask, rows, early, inbox), end=lambda: _cancel(tasks))

    async def _pieces(
        self,
        ask: Ask,
        rows: list[Row],
        early: list[tuple[Row, Any]],
        inbox: asyncio.Queue[tuple[Row, Any]],
    ) -> AsyncIterator[bytes]:
        head = self._head(ask, chunk=True)
        if ask.chat:
            for row in rows:
                yield event({**head, "choices": [_delta(ask, row.index, "", None, role=True)]})
        open_rows = len(rows)
        while open_rows:
            row, one = early.pop(0) if early else await inbox.get()
            if isinstance(one, Exception):
                yield event((of_error(one) or Refusal(500, "The model failed; the log says why.")).body())
                return
            if one.type in ("token", "finished") and one.text:
                yield event({**head, "choices": [_delta(ask, row.index, one.text, None)]})
            if one.type == "finished":
                open_rows -= 1
                yield event({**head, "choices": [_delta(ask, row.index, "", row.reason)], **_told([row])})
        if ask.include_usage:
            yield event({**head, "choices": [], "usage": _usage(ask, rows)})
        yield DONE

    # ---- policies ----

    async def _policy(self, ask: Ask) -> Answer:
        """A policy chooses among several, so its answer comes at once, in a stream too."""
        if ask.n > 1 or len(ask.prompts) > 1:
            raise Refusal(400, "A policy gives one answer to one prompt. Send them one by one.", param="n")
        if decided := sorted(set(ask.fields) - BESIDE_POLICY):
            said = f"'{decided[0]}' cannot stand beside a policy, which decides that itself. Put it there."
            raise Refusal(400, said, param=decided[0])
        if self._corrected:
            raise Refusal(400, "This server corrects behaviors in every answer, which a policy cannot. Leave it out.")
        outcome = await self._run(ask)
        about = {name: value for name, value in outcome.items() if name != "output"}
        reason = ENDS.get(outcome["finish_reason"], outcome["finish_reason"]) or "stop"
        spent = usage(outcome["prompt_tokens"], outcome["spent_tokens"])
        if not ask.stream:
            choice = _choice(ask, 0, outcome["output"], reason)
            return Whole({**self._head(ask, chunk=False), "choices": [choice], "usage": spent, "policy": about})
        return Streamed(self._at_once(ask, outcome["output"], reason, about, spent))

    async def _run(self, ask: Ask) -> dict[str, Any]:
        """Whoever may send a policy here may still not run code here: its unit tests are refused."""
        policies, id = self._local.policy, ask.policy.get("policy_id")
        running = policies.begin(
            self._prompt(ask, ask.prompts[0]),
            policies.chosen(ask.policy.get("policy"), id),
            max_new_tokens=ask.fields["max_tokens"],
            include_trace=bool(ask.policy.get("include_trace")),
            seed=ask.fields.get("seed"),
            allow_unit_tests=False,
        )
        outcome = await asyncio.wrap_future(running)
        return {**outcome.to_wire(), "policy_id": id}

    async def _at_once(
        self, ask: Ask, text: str, reason: str, about: dict[str, Any], spent: dict[str, int]
    ) -> AsyncIterator[bytes]:
        head = self._head(ask, chunk=True)
        yield event({**head, "choices": [_delta(ask, 0, text, None, role=ask.chat)]})
        yield event({**head, "choices": [_delta(ask, 0, "", reason)], "policy": about})
        if ask.include_usage:
            yield event({**head, "choices": [], "usage": spent})
        yield DONE


def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


def _seeded(request: GenerationRequest, place: int) -> GenerationRequest:
    """Several answers to one prompt differ, and one seed gives the same several again."""
    seed = request.sampling.seed
    if not place or seed is None:
        return request
    return dataclasses.replace(request, sampling=dataclasses.replace(request.sampling, seed=seed + place))


def _choice(ask: Ask, index: int, text: str, reason: str) -> dict[str, Any]:
    said = {"message": {"role": "assistant", "content": text, "refusal": None}} if ask.chat else {"text": text}
    return {"index": index, **said, "logprobs": None, "finish_reason": reason}


def _delta(ask: Ask, index: int, text: str, reason: str | None, *, role: bool = False) -> dict[str, Any]:
    if not ask.chat:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
    delta: dict[str, Any] = {"role": "assistant", "content": text} if role else {"content": text} if text else {}
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


def _usage(ask: Ask, rows: Sequence[Row]) -> dict[str, int]:
    prompt = sum(row.end.usage.prompt_tokens for row in rows[:: ask.n])
    written = sum(row.end.usage.completion_tokens for row in rows)
    return usage(prompt, written)


def _told(rows: Sequence[Row]) -> dict[str, Any]:
    return told([(row.index, row.request, row.end) for row in rows])
