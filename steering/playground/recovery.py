"""Ends runs whose process is gone, with what they had written. Whoever comes second changes nothing."""

from __future__ import annotations

import logging
from uuid import UUID

from channels.db import database_sync_to_async
from django.db import transaction
from django.utils import timezone

from steering import shared
from steering.playground.charging import settle_run
from steering.playground.mirror import events_above
from steering.playground.models import LaneOutput, Run
from steering.playground.runlog import Event
from steering.playground.stored import renumber, without_gap

logger = logging.getLogger(__name__)

INTERRUPTED = {
    "code": "interrupted",
    "message": "Steerboard was stopped while this lane ran. What it had written is kept; run it again for the rest.",
    "retry_after": None,
}


def runs_recover() -> int:
    """End what the last process left running; to be called once when the only server of a data folder starts."""
    return sum(interrupt(pk) for pk in Run.objects.running().values_list("pk", flat=True))


async def runs_sweep() -> None:
    """End the runs whose carrier is gone. What it wrote after its last checkpoint is taken from the stream."""
    for pk in await database_sync_to_async(_orphans)():
        if await database_sync_to_async(interrupt)(pk, await _tail(pk), orphaned=True):
            logger.warning("Run %s lost the process that carried it, and was ended", pk)


def _orphans() -> list[UUID]:
    return list(Run.objects.orphaned().values_list("pk", flat=True))


async def _tail(run_id: UUID) -> list[Event]:
    try:
        return await events_above(run_id)
    except shared.trouble():
        return []


@transaction.atomic
def interrupt(run_id: UUID, streamed: list[Event] = [], *, orphaned: bool = False) -> bool:  # noqa: B006  never changed
    """End a run with what it had written. False when it had ended, or with `orphaned` is carried after all."""
    open_runs = Run.objects.orphaned() if orphaned else Run.objects.running()
    if not open_runs.filter(pk=run_id).update(state=Run.State.INTERRUPTED, finished_at=timezone.now()):
        return False
    outputs = list(LaneOutput.objects.filter(run=run_id))
    known = without_gap(event for output in outputs for event in output.events())
    streamed = without_gap(event for event in streamed if event["t"] != "run_finished")
    if len(streamed) > len(known):
        known = streamed
        for output in outputs:
            if own := [event for event in streamed if event["lane"] == output.key]:
                renumber(output, own)
    seq = len(known)
    for output in outputs:
        if output.ended is None:
            output.state = LaneOutput.State.INTERRUPTED
            output.ended = {"t": "failed", "lane": output.key, "state": "interrupted", "error": INTERRUPTED, "seq": seq}
            seq += 1
    LaneOutput.objects.bulk_update(outputs, ["state", "text", "tokens", "watched", "started", "ended"])
    Run.objects.filter(pk=run_id).update(ended_seq=seq)
    settle_run(run_id, outputs)
    return True
