"""Starts, stops and follows runs. Coroutines marked so run on the gateway's loop: see `gateway.joined`.

A run lives in the process that started it, its carrier. Others follow a copy of its log and leave it a message to stop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from channels.db import database_sync_to_async
from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection

from inference.client import Inference
from inference.errors import Busy, InferenceError, InvalidRequest, NotFound
from inference.types import Failed, Finished, ModelInfo, Token
from steering import draining, gateway, shared
from steering.access import admission
from steering.access.principal import Principal
from steering.admitting import admitting
from steering.database import in_database, in_transaction
from steering.inserting import insert
from steering.playground import replicas
from steering.playground.charging import reserve_run
from steering.playground.live import LiveRun
from steering.playground.messages import MAX_PREVIEW_TOKENS, PreviewMessage, RunMessage
from steering.playground.mirror import mirror
from steering.playground.models import TITLE_LENGTH, LaneOutput, Run
from steering.playground.planning import PlannedLane, plan_lanes
from steering.playground.recovery import interrupt
from steering.playground.runlog import Event, RunLog
from steering.playground.schema import RunSettings, parse_settings
from steering.playground.stored import stored_log
from steering.refusals import parse_uuid

MAX_RUNS_AT_ONCE = 8  # of one person
SEED_BITS = 31

_live: dict[UUID, LiveRun] = {}
_mirrors: set[asyncio.Task[None]] = set()
_beginning: set[asyncio.Task[Run]] = set()
# By person: two sockets may bring the same `idem`, and the second must find the first one's run. People do not wait for
# each other but in the database's thread.
_starting: WeakValueDictionary[Any, asyncio.Lock] = WeakValueDictionary()


def log_of(run_id: UUID) -> RunLog | None:
    """The log of a run that is running in this process."""
    live = _live.get(run_id)
    return live.log if live and not live.log.lost else None


# ---- starting ----


async def run_start(
    user: Any,
    message: RunMessage,
    *,
    who: Principal | None = None,
    source: str = "playground",
    check: Callable[[], None] | None = None,
) -> Run:
    """Start a run, or return the one that this `idem` has started before. On the gateway's loop.

    `who` asks with a key of the user's; the run stops when the key ends. `check` is called in the database's thread
    before anything is made, and raises where the user may not go on. Raises InferenceError: bad settings, a run to
    continue that is not the user's, too many runs at once; Denied for a limit or a model that the key may not use.
    """
    who = who or Principal(user)
    draining.refuse_new_work()
    idem = parse_uuid(message.idem, "request")
    async with admitting():
        client = await gateway.opened()
        settings = _with_seed(parse_settings(message.settings))
        model = await _describe(client, settings.model)
        asked = _Asked(who, source, idem, message, settings, model, check)
        beginning = asyncio.create_task(_begin(client, asked))
        _beginning.add(beginning)
        beginning.add_done_callback(_beginning.discard)
        return await asyncio.shield(beginning)  # who leaves now leaves a run that is carried, not a row nobody carries


@dataclass(frozen=True, eq=False)
class _Asked:
    """What `run_start` is asked for, once it has been read: see there."""

    who: Principal
    source: str
    idem: UUID
    message: RunMessage
    settings: RunSettings
    model: ModelInfo
    check: Callable[[], None] | None


async def _begin(client: Inference, asked: _Asked) -> Run:
    who, user = asked.who, asked.who.user
    async with _starting.setdefault(user.pk, asyncio.Lock()):
        try:
            who.require_model(asked.model.id or asked.settings.model)
            run, rows, planned = await in_transaction(_create, asked)
        except (IntegrityError, InferenceError):  # told before, here or to another process: it may have been first
            if known := await in_database(_found, user, idem=asked.idem):
                return known
            raise
        _carry(LiveRun(run, rows, planned, client, who))
        return run


def _carry(live: LiveRun) -> None:
    run_id = live.run.pk
    _live[run_id] = live
    live.start().add_done_callback(lambda _: _live.pop(run_id, None))
    if shared.enabled():
        replicas.listen(_told)
        copying = asyncio.create_task(mirror(run_id, live.log))
        _mirrors.add(copying)
        copying.add_done_callback(_mirrors.discard)


def carries_runs() -> bool:
    """Whether runs of this process write, or are not copied to the end yet."""
    return bool(_live or _mirrors)


def _leave_room(user: Any) -> None:
    """In a transaction. Two runs of one person are let in one after the other, whatever process they came to."""
    if connection.features.has_select_for_update:  # SQLite lets in one writer at a time anyway
        get_user_model().objects.select_for_update(no_key=True).get(pk=user.pk)  # new rows may point at the person
    if _count_running(user) >= MAX_RUNS_AT_ONCE:
        raise Busy(
            "too_many_runs",
            f"{MAX_RUNS_AT_ONCE} of your runs are still writing. Stop one, or wait until one ends.",
            retry_after=5,
        )


def _count_running(user: Any) -> int:
    if shared.enabled():
        return Run.objects.owned_by(user).running().count()
    return sum(live.run.owner_id == user.pk and not live.log.closed for live in list(_live.values()))


def _with_seed(settings: RunSettings) -> RunSettings:
    """With a seed drawn where none is given, so that the run can be repeated."""
    if settings.sampling.seed is not None:
        return settings
    drawn = dataclasses.replace(settings.sampling, seed=secrets.randbits(SEED_BITS))
    return dataclasses.replace(settings, sampling=drawn)


async def _describe(client: Inference, model: str) -> ModelInfo:
    try:
        async with asyncio.timeout(5):
            return await client.describe(model)
    except (TimeoutError, InferenceError):
        return ModelInfo("loading", id="")  # the lanes will say what is wrong, each in its place


def _create(asked: _Asked) -> tuple[Run, list[LaneOutput], list[PlannedLane]]:
    """In a transaction."""
    if asked.check:
        asked.check()
    user, message, settings, model = asked.who.user, asked.message, asked.settings, asked.model
    again = _own_run(user, message.version_of)
    parent = again.parent if again else _own_run(user, message.parent)
    keys = _keys_to_run(settings, message.lanes)
    run = Run(owner=user, idem=asked.idem, parent=parent, title=_title(settings, again), input=settings.input)
    run.settings, run.carrier = settings.to_wire(), shared.PROCESS
    run.turn = again.turn if again else run.turn
    planned = plan_lanes(user=user, settings=settings, keys=keys, parent=parent, model=model, prefix=str(run.pk))
    rows = [*_carried_over(run, again, settings, keys), *(LaneOutput(run=run, key=key) for key in keys)]
    _leave_room(user)
    insert(run)
    reserve_run(asked.who, run, planned, model, asked.source)
    for row in rows:
        insert(row)
    return run, rows, planned


def _own_run(user: Any, run_id: str | None) -> Run | None:
    if run_id is None:
        return None
    run = Run.objects.owned_by(user).filter(pk=parse_uuid(run_id, "run")).first()
    if run is None:
        raise NotFound("run_not_found", "The run to go on from does not exist any more. Start a new one.")
    return run


def _keys_to_run(settings: RunSettings, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    keys = tuple(lane.key for lane in settings.lanes if wanted is None or lane.key in wanted)
    if not keys or (wanted is not None and len(keys) != len(set(wanted))):
        raise InvalidRequest("unknown_lane", "This run has no such lane. Reload the page.")
    return keys


def _carried_over(run: Run, again: Run | None, settings: RunSettings, keys: tuple[str, ...]) -> list[LaneOutput]:
    """Answers that stay as they are because only other lanes run again."""
    staying = {lane.key for lane in settings.lanes} - set(keys)
    if not again or not staying:
        return []
    kept = again.outputs.filter(key__in=staying, ended__isnull=False)
    return [
        LaneOutput(
            run=run, key=o.key, state=o.state, text=o.text, tokens=o.tokens, watched=o.watched, started=o.started,
            ended=o.ended,
        )
        for o in kept
    ]  # fmt: skip


def _title(settings: RunSettings, again: Run | None) -> str:
    if again and again.input == settings.input:
        return again.title
    line = " ".join(settings.input.split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"


def _found(user: Any, **by: Any) -> Run | None:
    return Run.objects.owned_by(user).filter(**by).first()


# ---- stopping ----


async def run_stop(user: Any, run_id: UUID, key: str | None) -> None:
    """Stop one lane or all; the partial text stays. Harmless when the run has ended. On the gateway's loop.

    A run of another process has been asked to stop when this returns, and one of ours has stopped.
    Raises NotFound for a run that is not the user's, Unavailable when its process cannot be reached.
    """
    live = _live.get(run_id)
    if live is not None and live.run.owner_id == user.pk:
        return await live.stop(key)
    run = await run_get(user, run_id)
    if shared.enabled() and run.state == Run.State.RUNNING:
        try:
            await replicas.send(run.carrier, {"t": "stop", "run": str(run_id), "lane": key})
        except shared.trouble():
            raise shared.unreachable() from None


async def _told(message: replicas.Message) -> None:
    """What another process asks of this one. It has checked that the person may."""
    live = _live.get(UUID(message["run"]))
    if message["t"] == "stop" and live is not None:
        await live.stop(message["lane"])


async def run_get(user: Any, run_id: UUID) -> Run:
    """The user's run. Raises NotFound, for others' runs too."""
    run = await in_database(_found, user, pk=run_id)
    if run is None:
        raise NotFound("run_not_found", "There is no such run. It may have been deleted.")
    return run


# ---- following ----


async def run_follow(user: Any, run_id: UUID, after: int) -> AsyncIterator[list[Event] | None]:
    """Every event above `after`, once and in order, in lists; then the run has ended. On any loop.

    None says that `after` is beyond what is known (the server lost its last second): all events follow, from 0.
    Raises NotFound for a run that is not the user's.
    """
    while True:
        live = _live.get(run_id)
        own = live is not None and live.run.owner_id == user.pk  # then nobody need be asked
        log = (own and log_of(run_id)) or await _log(await run_get(user, run_id))
        if after >= len(log.events) and (log.closed or log is log_of(run_id)):
            yield None
            after = -1
        async with aclosing(log.follow(max(after, -1))) as frames:  # type: ignore[type-var]
            async for frame in frames:
                yield frame
                after = frame[-1]["seq"]
        if not log.lost:
            return


async def _log(run: Run) -> RunLog:
    """Our own log of a run, a copy of its carrier's, or what is saved."""
    if log := log_of(run.pk):
        return log
    if run.state == Run.State.RUNNING and shared.enabled():
        return await gateway.joined(replicas.open_replica(run.pk))
    return await database_sync_to_async(_ended_log)(run)


def _ended_log(run: Run) -> RunLog:
    if run.state == Run.State.RUNNING:  # and no log, in the only process there is: the one that ran it is gone
        interrupt(run.pk)
    return stored_log(run.pk)


# ---- previews ----


async def preview(user: Any, message: PreviewMessage) -> AsyncIterator[str]:
    """Pieces of the first words of one lane; nothing is saved. On the gateway's loop.

    Sampling and seed are the run's own, so that a run with these settings begins with the same words; without a seed
    it is greedy. Raises InferenceError. Leaving the iterator ends the work.
    """
    draining.refuse_new_work()
    client = await gateway.opened()
    settings = parse_settings(message.settings)
    count = max(1, min(message.n, MAX_PREVIEW_TOKENS))
    short = dataclasses.replace(settings.sampling, max_tokens=count, logprobs=False, top_logprobs=0)
    if short.seed is None:
        short = dataclasses.replace(short, temperature=0.0)
    settings = dataclasses.replace(settings, sampling=short, watched=())
    model = await _describe(client, settings.model)
    await database_sync_to_async(admission.refuse_if_spent)(Principal(user))
    lane = await database_sync_to_async(_plan_preview)(user, message, settings, model)
    if lane.error or not lane.request:
        raise lane.error or InvalidRequest("unknown_lane", "There is no such lane. Reload the page.")
    async with aclosing(client.generate(lane.request)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Failed):
                raise InferenceError(event.code, event.message, retry_after=event.retry_after)
            if isinstance(event, Token | Finished) and event.text:
                yield event.text


def _plan_preview(user: Any, message: PreviewMessage, settings: RunSettings, model: ModelInfo) -> PlannedLane:
    parent = _own_run(user, message.parent)
    prefix = f"preview-{secrets.token_hex(8)}"
    return plan_lanes(
        user=user, settings=settings, keys=(settings.lane(message.lane).key,), parent=parent, model=model, prefix=prefix
    )[0]
