"""Carries a job from its first row to its last state. Knows rows and events; knows no tensor and no page.

The work runs on the gateway's loop, so it goes on when the page is closed. Every change of state is one UPDATE that
holds only while the job is active: whoever comes second, be it a result, a second Cancel or a failure, changes nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

from channels.db import database_sync_to_async
from django.db import OperationalError, transaction
from django.utils import timezone

from inference.errors import InferenceError
from inference.types import Failed, JobRequest, Progress, Result
from steering import gateway
from steering.jobs.models import Job

logger = logging.getLogger(__name__)

OnResult = Callable[[Job, dict[str, Any]], None]

_writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="job-writes")  # one connection, writes in order

UPDATE_SECONDS = 0.25  # no more than four progress writes a second
LOADING_SECONDS = 1.0
BUSY_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)  # SQLite may be locked by a long writer; an ending must not be lost

RESTARTED = (
    "restarted",
    "Steerboard was stopped while this job ran, and the work was lost. Start it again with the same settings.",
)
NOT_KEPT = (
    "result_not_kept",
    "The work finished, but its result could not be saved. Start it again; if this repeats, send the job id to whoever"
    " runs this server: the log has the cause.",
)
NO_RESULT = ("no_result", "The model side stopped without a result. Check that the model is ready, then start again.")
CRASHED = (
    "job_crashed",
    "Something in Steerboard broke while this job ran. Start it again; if this repeats, send the job id to whoever runs"
    " this server: the log has the cause.",
)


def job_start(
    *,
    owner: Any,
    kind: str,
    title: str,
    request: JobRequest,
    about: dict[str, Any] | None = None,
    on_result: OnResult | None = None,
) -> Job:
    """Start the work and return its row at once.

    `request.id` is replaced by the job's id. `about` is kept in `job.request` beside the request's own settings.
    `on_result(job, payload)` runs in the transaction that marks the job succeeded, so what it saves exists exactly
    when the job succeeded; it may set `job.result_url`. Keep it short.
    """
    job = Job(owner=owner, kind=kind, title=title[:200])
    job.request = _settings_of(request) | (about or {})
    job.save()
    named = dataclasses.replace(request, id=str(job.pk))
    transaction.on_commit(lambda: gateway.spawn(_carry(job, named, on_result)))
    return job


def job_cancel(job: Job) -> bool:
    """End the job now. Harmless, and False, when it had ended already."""
    cancelled = _end(job, Job.State.CANCELLED, eta_seconds=None)
    if cancelled:
        gateway.spawn(gateway.inference().cancel(str(job.pk)))
    return cancelled


def jobs_fail_interrupted() -> int:
    """Fail what the last process left behind; to be called once when the server starts. Returns how many."""
    code, message = RESTARTED
    return Job.objects.active().update(
        state=Job.State.FAILED, error_code=code, error_message=message, eta_seconds=None, finished_at=timezone.now()
    )


async def _carry(job: Job, request: JobRequest, on_result: OnResult | None) -> None:
    try:
        await _consume(job, request, on_result)
    except InferenceError as error:
        await _fail(job, error.code, error.message)
    except Exception:
        logger.exception("job %s crashed", job.pk)
        await _fail(job, *CRASHED)


async def _consume(job: Job, request: JobRequest, on_result: OnResult | None) -> None:
    await _model_loaded(job)
    written = 0.0
    async with aclosing(gateway.inference().run(request)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Progress) and time.monotonic() - written >= UPDATE_SECONDS:
                written = time.monotonic()
                if not await _report(job, event):
                    return  # cancelled: leaving the iterator stops the work
            elif isinstance(event, Result):
                return await _succeed(job, event.payload, on_result)
            elif isinstance(event, Failed):
                return await _fail(job, event.code, event.message)
    await _fail(job, *NO_RESULT)


async def _model_loaded(job: Job) -> None:
    """Wait while the model loads, and say so; a model that failed to load is reported by the run itself."""
    while (await gateway.inference().describe()).state == "loading":
        await _in_thread(Job.objects.active().filter(pk=job.pk).update, note="the model is still loading")
        await asyncio.sleep(LOADING_SECONDS)


async def _report(job: Job, progress: Progress) -> bool:
    """Write how far the job is. False when it is no longer active."""
    try:
        return await _in_thread(_write_progress, job, progress)
    except OperationalError:
        logger.warning("job %s: one progress report was skipped, the database is busy", job.pk)
        return True


def _write_progress(job: Job, progress: Progress) -> bool:
    job.started_at = job.started_at or timezone.now()
    changed = (
        Job.objects.active()
        .filter(pk=job.pk)
        .update(
            state=Job.State.RUNNING,
            started_at=job.started_at,
            done=progress.done,
            total=progress.total,
            note=progress.note[:300],
            eta_seconds=progress.eta_seconds,
        )
    )
    return changed == 1


async def _succeed(job: Job, payload: dict[str, Any], on_result: OnResult | None) -> None:
    try:
        await _insist(_keep_result, job, payload, on_result)
    except Exception:
        logger.exception("job %s: the result could not be kept", job.pk)
        await _fail(job, *NOT_KEPT)


def _keep_result(job: Job, payload: dict[str, Any], on_result: OnResult | None) -> None:
    with transaction.atomic():
        if not _end(job, Job.State.SUCCEEDED, result=payload, eta_seconds=None):
            return  # cancelled a moment ago: the result is dropped with it
        if on_result:
            on_result(job, payload)
            Job.objects.filter(pk=job.pk).update(result_url=job.result_url)


async def _fail(job: Job, code: str, message: str) -> None:
    await _insist(_end, job, Job.State.FAILED, error_code=code, error_message=message, eta_seconds=None)


def _end(job: Job, state: Job.State, **fields: Any) -> bool:
    ended = Job.objects.active().filter(pk=job.pk).update(state=state, finished_at=timezone.now(), **fields)
    return ended == 1


async def _insist(write: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Write, again and again while the database is locked."""
    for pause in BUSY_RETRY_SECONDS:
        try:
            return await _in_thread(write, *args, **kwargs)
        except OperationalError:
            logger.warning("the database is busy; trying again in %s s", pause)
            await asyncio.sleep(pause)
    return await _in_thread(write, *args, **kwargs)


async def _in_thread(write: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await database_sync_to_async(write, thread_sensitive=False, executor=_writer)(*args, **kwargs)


def _settings_of(request: JobRequest) -> dict[str, Any]:
    """The request without its pairs, which belong to the dataset and may be large."""
    settings = request.to_wire()
    settings["pairs"] = len(request.pairs)
    return settings
