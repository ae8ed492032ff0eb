"""Copies of the logs of runs that other processes carry, and this process's inbox. All of it on the gateway's loop.

One reader waits for the streams of all runs that are followed here, and for the inbox, in one command. A copy takes an
event only as its next one, so that each comes once; what the stream cannot give, the database can.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

from channels.db import database_sync_to_async
from django.db import Error as DatabaseTrouble

from steering import shared
from steering.playground.mirror import events_above, id_after, parsed, stream_of
from steering.playground.models import Run
from steering.playground.runlog import Event, RunLog
from steering.playground.stored import stored_events

logger = logging.getLogger(__name__)

BLOCK_MS = 1000
MOST_ENTRIES = 500  # of one stream, in one reading
RETRY_SECONDS = 0.5
GAP_SECONDS = 0.2
IDLE_SECONDS = 5.0  # a copy that nobody follows is kept so long
LOOK_SECONDS = 2.0  # how often the database is asked about runs of which nothing is heard
INBOX_MESSAGES = 1000
INBOX_SECONDS = 60

Message = dict[str, Any]
Handler = Callable[[Message], Coroutine[Any, Any, None]]

_replicas: dict[UUID, RunLog] = {}
_used: dict[UUID, float] = {}
_reader: asyncio.Task[None] | None = None
_handler: Handler | None = None
_inbox_at = "0-0"
_looked = 0.0
_handling: set[asyncio.Task[None]] = set()


def inbox_of(process: str) -> str:
    return f"steerboard:process:{process}"


async def send(process: str, message: Message) -> None:
    """Leave a message for a process; one that is gone never reads it. Raises `shared.trouble()`."""
    key = inbox_of(process)
    pipe = shared.redis().pipeline(transaction=False)
    pipe.xadd(key, {"m": json.dumps(message)}, maxlen=INBOX_MESSAGES, approximate=True)
    pipe.expire(key, INBOX_SECONDS)
    await pipe.execute()


def listen(handler: Handler | None = None) -> None:
    """Start the reader where it does not run; messages in the inbox go to `handler`."""
    global _reader, _handler
    _handler = handler or _handler
    if _reader is None or _reader.done():
        _reader = asyncio.create_task(_read_forever())
        _reader.add_done_callback(_log_failure)


async def open_replica(run_id: UUID) -> RunLog:
    """The copy of a log that another process writes, holding what is known of it by now."""
    log = _replicas.get(run_id)
    _used[run_id] = time.monotonic()
    if log is None:
        log = _replicas[run_id] = RunLog()
        listen()
        await _catch_up(run_id, log)
    try:
        _take(log, await events_above(run_id, len(log.events)))
        await send(shared.PROCESS, {"t": "wake"})  # the reader waits for the other streams: let it begin anew
    except shared.trouble():
        pass  # the reader tries again, and meanwhile the database is asked
    return log


async def _read_forever() -> None:
    while True:
        try:
            await _read()
        except shared.trouble():
            await asyncio.sleep(RETRY_SECONDS)
        except Exception:
            logger.exception("Reading what other processes write broke; it goes on")
            await asyncio.sleep(RETRY_SECONDS)
        await _look()
        _drop_unused()


async def _read() -> None:
    global _inbox_at, _looked
    inbox = inbox_of(shared.PROCESS)
    waiting = {stream_of(run_id): log for run_id, log in _replicas.items() if not log.closed}
    heads = {key: id_after(len(log.events)) for key, log in waiting.items()} | {inbox: _inbox_at}
    answer = await shared.redis().xread(heads, count=MOST_ENTRIES, block=BLOCK_MS)
    for raw, entries in answer or []:
        key = raw.decode()
        if key == inbox:
            _inbox_at = entries[-1][0].decode()
            _handle([json.loads(fields[b"m"]) for _, fields in entries])
        elif not _take(waiting[key], parsed(entries)):
            _looked = -LOOK_SECONDS  # Redis came back without the beginning: the database has it
            await asyncio.sleep(GAP_SECONDS)


def _take(log: RunLog, events: list[Event]) -> bool:
    """Add what comes next and skip what is there already. False where something is missing before the rest."""
    for event in events:
        if log.closed:
            return True
        if event["seq"] > len(log.events):
            return False
        if event["seq"] == len(log.events):
            log.add(event)
            if event["t"] == "run_finished":
                log.close()
    return True


def _handle(messages: list[Message]) -> None:
    for message in messages:
        if _handler and message["t"] != "wake":
            task = asyncio.create_task(_handler(message))
            _handling.add(task)
            task.add_done_callback(_handling.discard)
            task.add_done_callback(_log_failure)


async def _look() -> None:
    """Ask the database about every copy from time to time: the stream may have lost events, or the run its carrier."""
    global _looked
    if time.monotonic() - _looked < LOOK_SECONDS:
        return
    _looked = time.monotonic()
    for run_id, log in list(_replicas.items()):
        if not log.closed:
            await _catch_up(run_id, log)


async def _catch_up(run_id: UUID, log: RunLog) -> None:
    try:
        found = await database_sync_to_async(stored_events)(run_id)
    except Run.DoesNotExist:
        log.close(lost=True)
        return
    except DatabaseTrouble:
        logger.warning("Run %s cannot be read just now: the database does not answer", run_id)
        return
    if log.closed:
        return
    shorter = min(len(found), len(log.events))
    ended = bool(found) and found[-1]["t"] == "run_finished"
    if ended and (shorter < len(log.events) or found[:shorter] != log.events[:shorter]):
        log.close(lost=True)  # its carrier died with the last second: what the database has is what is true
    else:
        _take(log, found[shorter:])


def _drop_unused() -> None:
    now = time.monotonic()
    for run_id, log in list(_replicas.items()):
        if log.followed:
            _used[run_id] = now
        elif now - _used.get(run_id, now) > IDLE_SECONDS and not log.closed:
            log.close(lost=True)  # who takes it in this moment opens another
        if log.closed:
            del _replicas[run_id]
            _used.pop(run_id, None)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.error("Reading what other processes write broke", exc_info=error)
