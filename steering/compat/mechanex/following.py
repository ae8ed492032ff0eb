"""Jobs that a program waits for: their progress as events, their end as what they left, and no longer than it waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

from django.urls import resolve

from inference.errors import InferenceError, InvalidRequest, Unavailable
from steering.access.going_on import CHECK_SECONDS, may_go_on
from steering.access.principal import Principal
from steering.api.openai.errors import ApiError
from steering.api.openai.rows import revoked
from steering.gateway import spawn
from steering.jobs.models import Job
from steering.jobs.runner import job_cancel
from steering.threads import in_thread

LOOK_SECONDS = 0.25  # a job's row changes at most four times a second
AGAIN_SECONDS = 5.0
OURS = {"job_crashed", "result_not_kept"}
AWAY = {
    "draining", "events_lost", "lost", "model_loading", "model_not_loaded", "model_not_ready", "no_answer", "no_model",
    "no_result", "no_worker", "queue_full", "redis_unavailable", "redis_unreachable", "restarted", "shutting_down",
    "worker_lost",
}  # fmt: skip


async def followed(who: Principal, job: Job) -> AsyncIterator[Job]:
    """The job's row as it changes, once it has begun, up to the one that says that it succeeded.

    Leaving early cancels it. Raises what it failed with, and ApiError where it may not go on.
    """
    seen, looked, ended = "", time.monotonic(), False
    try:
        while True:
            row = await Job.objects.filter(pk=job.pk).afirst()
            ended = row is None or not row.is_active
            if row is None or row.state in (Job.State.CANCELLED, Job.State.FAILED):
                raise _end_of(row)
            if ended or (row.note and row.note != seen):
                seen = row.note
                yield row
            if ended:
                return
            await asyncio.sleep(LOOK_SECONDS)
            if time.monotonic() - looked > CHECK_SECONDS:
                looked = time.monotonic()
                if not await may_go_on(who):
                    raise revoked()
    finally:
        if not ended:
            spawn(in_thread(job_cancel)(job))


async def result_of(who: Principal, job: Job) -> Job:
    """The row of the job once it has succeeded. Raises as `followed`."""
    async with aclosing(followed(who, job)) as rows:  # type: ignore[type-var]
        async for row in rows:
            job = row
    return job


def progress_of(row: Job) -> dict[str, Any]:
    """An event's worth of it."""
    told = {"status": "progress", "message": row.note, "done": row.done, "total": row.total}
    return told | {"eta_seconds": row.eta_seconds, "job_id": str(row.pk)}


def left_by(row: Job) -> UUID:
    """The id of the library entry that it left."""
    return UUID(str(resolve(row.result_url).kwargs["pk"]))


def _end_of(row: Job | None) -> Exception:
    """Why there is nothing. A row keeps an error's code, from which its kind follows."""
    if row is None or row.state == Job.State.CANCELLED:
        return ApiError(503, "stopped", "This job was stopped by its owner or an administrator. Start it again.")
    if row.error_code in AWAY:
        return Unavailable(row.error_code, row.error_message, retry_after=AGAIN_SECONDS)
    kind = InferenceError if row.error_code in OURS else InvalidRequest
    return kind(row.error_code, row.error_message)
