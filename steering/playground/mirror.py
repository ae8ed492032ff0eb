"""The events of a run in a Redis Stream, for the processes that do not carry it.

An event's `seq` decides its id (seq + 1, since Redis knows no id 0), so that writing one twice is refused by Redis and
n copied events are followed by whatever lies above id n. The original is the carrier's log: a Redis that comes back
empty is filled again from it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any
from uuid import UUID

from steering import shared
from steering.playground.runlog import Event, RunLog

logger = logging.getLogger(__name__)

MOST_EVENTS = 40_000  # more than six lanes of 2048 tokens that are watched
KEPT_SECONDS = 3600
RETRY_SECONDS = 0.5


def stream_of(run_id: UUID) -> str:
    return f"steerboard:run:{run_id}"


def id_after(count: int) -> str:
    """The id above which a reader finds what follows its first `count` events."""
    return f"{count}-0"


async def mirror(run_id: UUID, log: RunLog) -> None:
    """Copy a log until it is closed and copied, through outages of Redis. On the gateway's loop.

    An outage that outlasts the run ends the copying: from then on the database has all of it.
    """
    at = 0
    while True:
        try:
            async for frame in log.follow(at - 1):
                await _append(run_id, frame)
                at = frame[-1]["seq"] + 1
            return
        except shared.trouble():
            if log.closed:
                return
            logger.warning("Run %s is not mirrored just now: Redis cannot be reached", run_id)
        at = await _resume(run_id, log)


async def _append(run_id: UUID, frame: list[Event]) -> None:
    key = stream_of(run_id)
    pipe = shared.redis().pipeline(transaction=False)
    for event in frame:
        text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        pipe.xadd(key, {"e": text}, id=f"{event['seq'] + 1}-0", maxlen=MOST_EVENTS, approximate=True)
    pipe.expire(key, KEPT_SECONDS)
    await pipe.execute()


async def _resume(run_id: UUID, log: RunLog) -> int:
    """How many events the stream holds, once it can be asked again."""
    while True:
        await asyncio.sleep(RETRY_SECONDS)
        try:
            last = await shared.redis().xrevrange(stream_of(run_id), count=1)
            return int(last[0][0].partition(b"-")[0]) if last else 0
        except shared.trouble():
            if log.closed:
                return len(log.events)


async def events_above(run_id: UUID, count: int = 0) -> list[Event]:
    """What the stream holds above its first `count` events. Raises `shared.trouble()`."""
    return parsed(await shared.redis().xrange(stream_of(run_id), min=f"({id_after(count)}"))


def parsed(entries: list[Any]) -> list[Event]:
    return [json.loads(fields[b"e"]) for _, fields in entries]
