"""One run while it runs: a task per lane on the gateway's loop, an event log, and checkpoints in the database.

Nothing here knows a socket. Whoever watches follows the log; whoever comes late reads the rows, which hold the same
events with the same numbers. A checkpoint also renews the lease by which other processes know that the run is carried.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any

from channels.db import database_sync_to_async
from django.db import Error as DatabaseTrouble
from django.utils import timezone

from inference.client import Inference
from inference.errors import EngineFault, InferenceError
from inference.types import Event as ModelEvent
from inference.types import Failed, Finished, Fired, GenerationRequest, Scored, Started, Token
from steering.access.going_on import may_go_on
from steering.access.principal import Principal
from steering.behaviors.monitoring import record
from steering.playground.models import LaneOutput, Run
from steering.playground.planning import PlannedLane
from steering.playground.runlog import RunLog
from steering.playground.saving import Checkpoint, RowText, row_of, save
from steering.playground.stored import kept_of_watch, renumber, seen_in

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 1.0
STOP_SECONDS = 3.0  # how long the model side may take to confirm a stop
SAVE_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0)
LEAST_LOGPROB = -99.0  # stands for minus infinity, which JSON has not


class LiveRun:
    """`outputs` are the rows of all lanes; those that end before the run starts are carried over from a version."""

    def __init__(
        self, run: Run, outputs: list[LaneOutput], planned: list[PlannedLane], client: Inference, who: Principal
    ):
        self.run = run
        self.who = who
        self.outputs = {row.key: row for row in outputs}
        carried = [row for row in outputs if row.ended is not None]
        self.log = RunLog(event for row in carried for event in row.events())
        for row in carried:
            renumber(row, [event for event in self.log.events if event["lane"] == row.key])
        self._client = client
        self._planned = planned
        self._watches = {lane.key: [w.name for w in lane.request.watches] for lane in planned if lane.request}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._unsaved: set[str] = {row.key for row in carried}
        self._texts = {key: RowText() for key in self.outputs}

    def start(self) -> asyncio.Task[None]:
        """Begin every lane at once; the task ends when the run has ended and is saved. It never raises."""
        self._tasks = {lane.key: asyncio.create_task(self._carry_lane(lane)) for lane in self._planned}
        return asyncio.create_task(self._carry())

    async def _carry(self) -> None:
        checkpoints = asyncio.create_task(self._checkpoints())
        try:
            await asyncio.gather(*self._tasks.values())
        finally:
            checkpoints.cancel()
        await asyncio.gather(checkpoints, return_exceptions=True)
        await self._end()

    async def stop(self, key: str | None) -> None:
        """End one lane, or all; what they wrote stays. Returns when they have ended."""
        wanted = [lane for lane in self._planned if key in (None, lane.key) and lane.request]
        running = [lane for lane in wanted if lane.key in self._tasks and not self._tasks[lane.key].done()]
        for lane in running:
            await self._client.cancel(self._request(lane).id)
        tasks = [self._tasks[lane.key] for lane in running]
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=STOP_SECONDS)
            for task in stuck:
                task.cancel()

    @staticmethod
    def _request(lane: PlannedLane) -> GenerationRequest:
        assert lane.request is not None
        return lane.request

    # ---- one lane ----

    async def _carry_lane(self, lane: PlannedLane) -> None:
        try:
            if lane.error:
                raise lane.error
            async with aclosing(self._client.generate(self._request(lane))) as events:  # type: ignore[type-var]
                async for event in events:
                    self._record(lane.key, event)
        except InferenceError as error:
            self._fail(lane.key, error)
        except asyncio.CancelledError:
            self._finish(lane.key, {"state": "cancelled", "reason": "cancelled"})
        except Exception:
            logger.exception("Lane %s of run %s broke", lane.key, self.run.pk)
            self._fail(lane.key, EngineFault("lane_broke", "Something broke while this lane ran. Run it again."))
        else:
            if self.outputs[lane.key].ended is None:
                self._fail(lane.key, EngineFault("no_end", "The model side stopped without an end. Run it again."))

    def _record(self, key: str, event: ModelEvent) -> None:
        row = self.outputs[key]
        if row.ended is not None or self.log.closed:
            return
        if isinstance(event, Token):
            row.text += event.text
            added = self.log.add({"t": "token", "lane": key, **_token(event)})
            row.tokens.append({name: added[name] for name in ("seq", "id", "s", "lp", "top")})
            self._unsaved.add(key)
        elif isinstance(event, Started):
            facts: dict[str, Any] = {"prompt_tokens": event.prompt_tokens, "seed": event.seed}
            if watches := self._watches.get(key):
                facts["watches"] = watches
            row.started = self.log.add({"t": "started", "lane": key, **facts})
            self._unsaved.add(key)
        elif isinstance(event, Scored | Fired):
            row.watched.append(kept_of_watch(self.log.add({"lane": key, **_watched(event)})))
            self._unsaved.add(key)
        elif isinstance(event, Finished):
            row.text += event.text
            self._finish(key, _finished(event))
        elif isinstance(event, Failed):
            error = InferenceError(event.code, event.message, retry_after=event.retry_after)
            self._fail(key, error, "interrupted" if event.code == "shutting_down" else "failed")

    def _fail(self, key: str, error: InferenceError, state: str = "failed") -> None:
        facts = {"code": error.code, "message": error.message, "retry_after": error.retry_after}
        self._finish(key, {"t": "failed", "state": state, "error": facts})

    def _finish(self, key: str, facts: dict[str, Any]) -> None:
        row = self.outputs[key]
        if row.ended is not None or self.log.closed:
            return
        row.state = facts["state"]
        row.ended = self.log.add({"t": "finished", "lane": key, **facts})
        self._unsaved.add(key)

    # ---- the run ----

    def _state(self) -> str:
        states = {self.outputs[lane.key].state for lane in self._planned}
        for state in ("interrupted", "cancelled", "finished"):
            if state in states:
                return state
        return "failed"

    async def _end(self) -> None:
        if self.log.closed:
            return
        self.run.state = self._state()
        self.run.ended_seq = len(self.log.events)
        self.run.finished_at = timezone.now()
        self._unsaved = set(self.outputs)
        saved = await self._save_at_last()
        if self.log.closed:
            return
        self.log.add({"t": "run_finished", "state": self.run.state, "saved": saved})
        self.log.close()
        await self._count_behaviors()

    async def _count_behaviors(self) -> None:
        """What behaviors saw in the lanes that were written; those that failed say nothing."""
        pairs = [(lane.behaviors, self.outputs[lane.key]) for lane in self._planned if lane.behaviors]
        seen = [seen_in(names, row) for names, row in pairs if row.receipt]
        if seen:
            await database_sync_to_async(record)(self.who, "playground", seen)

    async def _checkpoints(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(CHECKPOINT_SECONDS - clock() % CHECKPOINT_SECONDS)  # with those of all other runs
            await self._save()
            if self.who.key is not None and not await self._key_holds():
                await self.stop(None)

    async def _key_holds(self) -> bool:
        """Whether the key that started this run still opens anything."""
        try:
            return await may_go_on(self.who)
        except DatabaseTrouble:
            return True  # the next turn asks again

    async def _save_at_last(self) -> bool:
        for pause in SAVE_RETRY_SECONDS:
            if await self._save(ending=True):
                return True
            await asyncio.sleep(pause)
        return await self._save(ending=True)

    async def _save(self, *, ending: bool = False) -> bool:
        """Write what changed. False, with a line in the log, when the database refuses; the next turn tries again."""
        keys, self._unsaved = self._unsaved, set()
        rows = [row_of(self.outputs[key], self._texts[key]) for key in sorted(keys)]
        run = self.run
        facts = {"state": run.state, "ended_seq": run.ended_seq, "finished_at": run.finished_at} if ending else {}
        try:
            everything = [_frozen(row) for row in self.outputs.values()]
            still_ours = await asyncio.shield(save(Checkpoint(run.pk, rows, everything, facts)))
        except DatabaseTrouble:
            logger.exception("Run %s could not be saved", run.pk)
            self._unsaved |= keys
            return False
        if not still_ours:
            self._let_go()
        return True

    def _let_go(self) -> None:
        """The run was deleted, or others took this process for dead and ended it: what they wrote stands."""
        if self.log.closed:
            return
        logger.warning("Run %s was ended elsewhere while it ran here", self.run.pk)
        self.log.close(lost=True)
        for task in self._tasks.values():
            task.cancel()


def _frozen(row: LaneOutput) -> LaneOutput:
    """A copy from which a thread can tell what the lane has used, while the lane goes on."""
    return LaneOutput(
        pk=row.pk, run_id=row.run_id, key=row.key, state=row.state, tokens=list(row.tokens), watched=list(row.watched),
        started=row.started, ended=row.ended,
    )  # fmt: skip


def _token(event: Token) -> dict[str, Any]:
    top = [[alternative.token, _logprob(alternative.logprob)] for alternative in event.top]
    return {"id": event.token_id, "s": event.text, "lp": _logprob(event.logprob), "top": top}


def _watched(event: Scored | Fired) -> dict[str, Any]:
    if isinstance(event, Fired):
        return {"t": "fired", "firings": [firing.to_wire() for firing in event.firings]}
    values = [[None if v is None else float(f"{v:.5g}") for v in scores] for scores in event.values]
    return {"t": "scored", "start": event.start, "values": values}


def _logprob(value: float | None) -> float | None:
    if value is None or value != value:  # NaN
        return None
    return round(value, 4) if value > LEAST_LOGPROB else LEAST_LOGPROB


def _finished(event: Finished) -> dict[str, Any]:
    n = event.usage.completion_tokens
    return {
        "state": "cancelled" if event.reason == "cancelled" else "finished",
        "reason": event.reason,
        "usage": event.usage.to_wire(),
        "receipt": event.receipt.to_wire(),
        "seconds": round(event.seconds, 4),
        "rate": round(n / event.seconds, 2) if event.seconds > 0 else 0.0,
        "s": event.text,
    }
