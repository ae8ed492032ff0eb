"""One call from its admission to its end: reserve, run, write the answer, settle. Whatever ends it, its rows stop."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, Protocol

from django.http import HttpRequest

from inference.errors import InferenceError
from inference.types import Event, Finished, Started
from steering import draining, gateway
from steering.access.admission import Reservation, refund, reserve, settle
from steering.access.going_on import may_go_on
from steering.access.principal import Principal, principal_of
from steering.admitting import admitting
from steering.api.openai.answer import Answer
from steering.api.openai.ask import Ask
from steering.api.openai.body import Fields, parse_json
from steering.api.openai.errors import ApiError
from steering.api.openai.frames import frames
from steering.api.openai.planning import Plan, plan
from steering.api.openai.rows import Rows
from steering.api.openai.written import Piece
from steering.behaviors.monitoring import record
from steering.database import unless_left
from steering.threads import in_company, in_turn

log = logging.getLogger(__name__)

HEADERS_SECONDS = 10.0  # a stream that has to wait in line says so after this
IDLE_SECONDS = 10.0  # between two signs of life in a stream


class Stream(Protocol):
    """What a form of answer sends, in this order; `done` is its last word, if it has one."""

    done: str

    def begin(self) -> Iterator[dict[str, Any]]: ...
    def piece(self, row: int, piece: Piece) -> Iterator[dict[str, Any]]: ...
    def end(self, row: int) -> Iterator[dict[str, Any]]: ...
    def finish(self) -> Iterator[dict[str, Any]]: ...
    def failure(self, error: ApiError) -> Iterator[dict[str, Any]]: ...


class Form(Protocol):
    """A way to ask and to answer: the modules chat, completions and responses."""

    PREFIX: str
    parse: Callable[[Fields], Ask]
    whole: Callable[[Answer], dict[str, Any]]
    Stream: Callable[[Answer], Stream]


class Call:
    """Between `opened` and `close`, which may be called twice and from anywhere on the loop."""

    def __init__(self, who: Principal, form: Form, planned: Plan, reservation: Reservation):
        self.form, self.headers = form, reservation.headers
        self.answer = Answer(planned.requests[0].id, planned)
        self._reservation, self._who = reservation, who
        self._hold = draining.hold()
        self._rows = Rows(planned.requests, partial(may_go_on, who), self.close)
        self._early: list[tuple[int, Event]] = []
        self._closed = False

    @property
    def streamed(self) -> bool:
        return self.answer.ask.stream

    async def begin(self) -> None:
        """Wait until all rows were taken up, or long enough: what is refused until then is refused with a status."""
        while not self.answer.begun:
            taken = await self._take(HEADERS_SECONDS)
            if taken is None:
                return
            row, event = taken
            if isinstance(event, Started):
                self.answer.take(row, event)
            else:
                self._early.append(taken)

    async def whole(self) -> dict[str, Any]:
        while not self.answer.ended:
            if taken := await self._take(IDLE_SECONDS):
                self.answer.take(*taken)
        await self._settle_now()
        return self.form.whole(self.answer)

    async def frames(self) -> AsyncIterator[bytes]:
        """Server-sent events. Leaving early, as when the client has gone, stops the rows."""
        stream = self.form.Stream(self.answer)
        try:
            for frame in frames(stream.begin()):
                yield frame
            async for frame in self._body(stream):
                yield frame
            await self._settle_now()
            for frame in frames(stream.finish()):
                yield frame
            if stream.done:
                yield f"data: {stream.done}\n\n".encode()
        except ApiError as error:
            for frame in frames(stream.failure(error)):
                yield frame
        except Exception:
            log.exception("The stream of %s broke", self.answer.id)
            for frame in frames(stream.failure(ApiError(500, "server_error", "The server failed. Try again."))):
                yield frame
        finally:
            self.close()

    async def _body(self, stream: Stream) -> AsyncIterator[bytes]:
        while not self.answer.ended:
            taken = self._early.pop(0) if self._early else await self._take(IDLE_SECONDS)
            if taken is None:
                yield b": still here\n\n"
                continue
            row, event = taken
            piece = self.answer.take(row, event)
            if piece is not None:
                for frame in frames(stream.piece(row, piece)):
                    yield frame
            if isinstance(event, Finished):
                for frame in frames(stream.end(row)):
                    yield frame

    async def _take(self, patience: float) -> tuple[int, Event] | None:
        try:
            return await self._rows.take(patience)
        except ApiError as error:
            if error.param == "constraint":  # as whoever asked called it
                error.param = self.answer.ask.constraint_param
            raise

    # ---- the end ----

    async def _settle_now(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.shield(self._end())  # who leaves now leaves it to itself

    def close(self) -> None:
        """Stop what still runs; what it used so far is charged, in the background, since nobody waits any more."""
        self._rows.close()
        if not self._closed:
            self._closed = True
            gateway.spawn(self._end())

    async def _end(self) -> None:
        try:
            await in_turn(self._settle)()
        finally:
            self._hold.release()

    def _settle(self) -> None:
        answer = self.answer
        if answer.completion_tokens or answer.ended:
            settle(
                self._reservation.id,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
            )
        else:
            refund(self._reservation.id)
        if seen := answer.seen():
            record(self._who, "openai", seen)


async def opened(request: HttpRequest, form: Form) -> tuple[Principal, Ask, Call | None]:
    """Who asks, what, and its call, unless a policy is to answer. Raises ApiError, Denied and InferenceError for what
    is refused before anything runs.
    """
    async with admitting():
        admission = await unless_left(_admit(request, form), _give_back)
    if isinstance(admission, Exception):
        raise admission
    who, ask, admitted = admission
    return who, ask, Call(who, form, *admitted) if admitted else None


Admission = tuple[Principal, Ask, tuple[Plan, Reservation] | None]
Refusal = ApiError | InferenceError


def _give_back(admission: Admission | Refusal) -> None:
    if not isinstance(admission, Exception) and (admitted := admission[2]):
        gateway.spawn(in_turn(refund)(admitted[1].id))


@in_company
def _admit(request: HttpRequest, form: Form) -> Admission | Refusal:
    try:
        return _admitted(request, form)
    except (ApiError, InferenceError) as refusal:
        return refusal  # what is noted of who was refused stays, as when the key was last used


def _admitted(request: HttpRequest, form: Form) -> Admission:
    who = principal_of(request)
    who.require("generate")
    ask = form.parse(Fields(parse_json(request.body)))
    if ask.policy:
        return who, ask, None
    draining.refuse_new_work()
    planned = plan(who, ask, form.PREFIX + secrets.token_hex(12))
    id, model = planned.requests[0].id, planned.model.id
    reservation = reserve(who, work=id, kind="generate", model=model, tokens=planned.tokens, source="openai")
    return who, ask, (planned, reservation)
