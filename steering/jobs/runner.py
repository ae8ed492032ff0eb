"""Carries a job from its first row to its last state. Knows rows and events; knows no tensor and no page.

The work runs on the gateway's loop, so it goes on when the page is closed: of this process where it is the only one, of
a web worker where there are several. Every change of state is one UPDATE that holds only while the job is active and
still ours: whoever comes second, be it a result, a second Cancel or a failure, changes nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from channels.db import database_sync_to_async
from django.db import InterfaceError, OperationalError, transaction
from django.db.models.functions import Now
from django.dispatch import receiver
from django.utils import timezone

from inference.errors import InferenceError
from inference.types import Failed, Progress, Result
from steering import gateway, shared
from steering.access.keys import key_revoked
from steering.access.models import ApiKey
from steering.access.principal import Principal
from steering.jobs.charging import end_unfinished, jobs_held_by, refund_ended_jobs, reserve_job, settle_job
from steering.jobs.kinds import events_of, is_recipe, keeper_of, request_of
from steering.jobs.models import Job, JobQuerySet

logger = logging.getLogger(__name__)

BUSY_DATABASE = (OperationalError, InterfaceError)

_recipes_here: dict[UUID, asyncio.Task[Any]] = {}  # those that this process carries, by job
_writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="job-writes")  # one connection, writes in order

UPDATE_SECONDS = 0.25  # no more than four progress writes a second
LOADING_SECONDS = 1.0
BEAT_SECONDS = 2.0
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
BUSY_RETRY_SECONDS = (
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
)  # SQLite may be locked, PostgreSQL restarting; an ending must not be lost

RESTARTED = (
    "restarted",
    "Steerboard was stopped while this job ran, and the work was lost. Start it again with the same settings.",
)
NOT_KEPT = (
    "result_not_kept",
    "The work finished, but its result could not be saved. Start it again; if this repeats, send the job id to whoever"
    " runs this server: the log has the cause.",
)
CARRIER_LOST = (
    "worker_lost",
    "The process that carried this job is gone, and the work was lost. Start it again with the same settings.",
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
    request: Any,
    about: dict[str, Any] | None = None,
    who: Principal | None = None,
    source: str = "job",
    tokens: int = 0,
) -> Job:
    """Start the work and return its row at once. What it finds is kept by the kind's keeper, see `kinds.py`.

    `request` is a JobRequest or that of a recipe (see `kinds.recipe`); its id is replaced by the job's. `about` is kept
    in `job.request` beside the request's own settings. `who` asks with a key of the owner's; `tokens` is what the work
    may read and write at most. Raises Denied for a limit, or a model that the key may not use.
    """
    who = who or Principal(owner)
    if who.key is not None and who.key.models:
        who.require_model(request.model or gateway.model_info().id)
    job = Job(owner=owner, kind=kind, title=title[:200])
    job.request = _settings_of(request) | (about or {})
    named = dataclasses.replace(request, id=str(job.pk))
    if shared.enabled():
        job.work = named.to_wire()
    with transaction.atomic():
        job.save()
        reserve_job(who, job, request.model, tokens, source)
    transaction.on_commit(lambda: gateway.spawn(_enqueue(job.pk) if shared.enabled() else _carry(job, named)))
    return job


def job_cancel(job: Job) -> bool:
    """End the job now, whoever carries it. Harmless, and False, when it had ended already."""
    active = Job.objects.active().filter(pk=job.pk)
    with transaction.atomic():
        cancelled = active.update(state=Job.State.CANCELLED, finished_at=timezone.now(), eta_seconds=None, work=None)
        if cancelled:
            end_unfinished(job.pk)
    if cancelled:
        gateway.spawn(_stop(job.pk))
    return cancelled == 1


def job_finish(job: Job) -> bool:
    """Ask a job to end with the best it has; False when it had ended already. Kinds that cannot go on as they are."""
    active = Job.objects.active().filter(pk=job.pk).exists()
    if active:
        gateway.spawn(gateway.inference().finish(str(job.pk)))
    return active


async def _stop(job_id: UUID) -> None:
    """End the work, where this process carries it; elsewhere its carrier finds out within a beat."""
    if task := _recipes_here.get(job_id):
        task.cancel()
    else:
        await gateway.inference().cancel(str(job_id))


@receiver(key_revoked)
def jobs_of_key_cancel(key: ApiKey, **kwargs: Any) -> None:
    """What a key had started ends with it."""
    for job in jobs_held_by(key):
        job_cancel(job)


def jobs_fail_interrupted() -> int:
    """Fail what the last process left behind; for the start of a data folder's only server. Returns how many."""
    code, message = RESTARTED
    return Job.objects.active().update(
        state=Job.State.FAILED, error_code=code, error_message=message, eta_seconds=None, finished_at=timezone.now()
    )


# ---- several processes ----


async def _enqueue(job_id: UUID) -> None:
    """Hand a job to the web workers. Where that fails, the next sweep tries again."""
    from steering.jobs import queue  # loads Celery, which one process alone does not need

    try:
        await asyncio.to_thread(queue.send, job_id)
    except queue.TROUBLE:
        logger.warning("job %s could not be put on the queue; it is tried again", job_id)
        waiting = Job.objects.filter(pk=job_id, state=Job.State.QUEUED, carrier="")
        await _in_thread(waiting.update, heartbeat_at=LONG_AGO)


async def job_carry(job_id: UUID) -> None:
    """Carry a queued job in this process until it ends. Nothing happens when it has ended, or another has it."""
    job = await _insist(_claim, job_id)
    if job is None:
        return
    try:
        work = asyncio.create_task(_carry(job, request_of(job)))
    except InferenceError as error:
        return await _fail(job, error.code, error.message)
    while not (await asyncio.wait({work}, timeout=BEAT_SECONDS))[0]:
        if not await _still_ours(job):
            work.cancel()  # ended elsewhere, or taken for dead: leaving the stream stops the model side


def _claim(job_id: UUID) -> Job | None:
    """Take a queued job. The carrier is new each time: a process that was taken for dead may get its own job again."""
    waiting = Job.objects.filter(pk=job_id, state=Job.State.QUEUED, carrier="")
    if not waiting.update(carrier=f"{shared.PROCESS}/{secrets.token_hex(4)}", heartbeat_at=Now()):
        return None
    return Job.objects.select_related("owner").get(pk=job_id)


async def _still_ours(job: Job) -> bool:
    try:
        return bool(await _in_thread(_ours(job).update, heartbeat_at=Now()))
    except BUSY_DATABASE:
        return True


async def jobs_sweep() -> None:
    """Put on the queue again what never began, and fail what lost its carrier. Any process may, at any time."""
    if forgotten := await _in_thread(lambda: list(Job.objects.forgotten().values_list("pk", flat=True))):
        await _send_again(forgotten)
    for job_id in await _in_thread(lambda: list(Job.objects.orphaned().values_list("pk", flat=True))):
        if await _in_thread(_fail_orphan, job_id):
            logger.warning("job %s lost the process that carried it, and was ended", job_id)
            await gateway.inference().cancel(str(job_id))
    await _in_thread(refund_ended_jobs)


async def _send_again(jobs: list[UUID]) -> None:
    """Put jobs on the queue whose message is not there any more. One that only waits for its turn is left alone."""
    from steering.jobs import queue

    try:
        waiting = await queue.waiting()
    except shared.trouble():
        return  # nothing can be sent either; the next sweep asks again
    for job_id in jobs:
        still = Job.objects.forgotten().filter(pk=job_id)
        if await _in_thread(still.update, carrier="", heartbeat_at=Now()) and str(job_id) not in waiting:
            logger.warning("job %s lost its message or the process that took it, and is sent again", job_id)
            await _enqueue(job_id)


@transaction.atomic
def _fail_orphan(job_id: UUID) -> bool:
    code, message = CARRIER_LOST
    failed = (
        Job.objects.orphaned()
        .filter(pk=job_id)
        .update(
            state=Job.State.FAILED,
            error_code=code,
            error_message=message,
            eta_seconds=None,
            finished_at=timezone.now(),
            work=None,
        )
    )
    if failed:
        end_unfinished(job_id)
    return bool(failed)


# ---- carrying ----


async def _carry(job: Job, request: Any) -> None:
    if is_recipe(request) and (task := asyncio.current_task()):
        _recipes_here[job.pk] = task
    try:
        await _consume(job, request)
    except InferenceError as error:
        await _fail(job, error.code, error.message)
    except Exception:
        logger.exception("job %s crashed", job.pk)
        await _fail(job, *CRASHED)
    finally:
        _recipes_here.pop(job.pk, None)


async def _consume(job: Job, request: Any) -> None:
    await _model_loaded(job, request.model)
    written = 0.0
    async with aclosing(events_of(gateway.inference(), request)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Progress) and time.monotonic() - written >= UPDATE_SECONDS:
                written = time.monotonic()
                if not await _report(job, event):
                    return  # cancelled: leaving the iterator stops the work
            elif isinstance(event, Result):
                return await _succeed(job, event.payload)
            elif isinstance(event, Failed):
                return await _fail(job, event.code, event.message)
    await _fail(job, *NO_RESULT)


async def _model_loaded(job: Job, model: str) -> None:
    """Wait while the model loads, and say so; a model that failed to load is reported by the run itself."""
    while (await gateway.inference().describe(model)).state == "loading":
        await _in_thread(_ours(job).update, note="the model is still loading")
        await asyncio.sleep(LOADING_SECONDS)


async def _report(job: Job, progress: Progress) -> bool:
    """Write how far the job is. False when it is no longer active."""
    try:
        return await _in_thread(_write_progress, job, progress)
    except BUSY_DATABASE:
        logger.warning("job %s: one progress report was skipped, the database is busy", job.pk)
        return True


def _write_progress(job: Job, progress: Progress) -> bool:
    job.started_at = job.started_at or timezone.now()
    changed = _ours(job).update(
        state=Job.State.RUNNING,
        started_at=job.started_at,
        done=progress.done,
        total=progress.total,
        note=progress.note[:300],
        eta_seconds=progress.eta_seconds,
        **({"facts": progress.facts} if progress.facts else {}),
        heartbeat_at=Now(),
    )
    return changed == 1


async def _succeed(job: Job, payload: dict[str, Any]) -> None:
    try:
        await _insist(_keep_result, job, payload)
    except Exception:
        logger.exception("job %s: the result could not be kept", job.pk)
        await _fail(job, *NOT_KEPT)


def _keep_result(job: Job, payload: dict[str, Any]) -> None:
    with transaction.atomic():
        if not _end(job, Job.State.SUCCEEDED, result=payload, eta_seconds=None):
            return  # cancelled a moment ago: the result is dropped with it
        if keep := keeper_of(job.kind):
            keep(job, payload)
            Job.objects.filter(pk=job.pk).update(result_url=job.result_url)
        settle_job(job)


async def _fail(job: Job, code: str, message: str) -> None:
    await _insist(_end_in_failure, job, error_code=code, error_message=message, eta_seconds=None)


@transaction.atomic
def _end_in_failure(job: Job, **fields: Any) -> None:
    if _end(job, Job.State.FAILED, **fields):
        end_unfinished(job.pk)


def _end(job: Job, state: Job.State, **fields: Any) -> bool:
    return _ours(job).update(state=state, finished_at=timezone.now(), work=None, **fields) == 1


def _ours(job: Job) -> JobQuerySet:
    """The row, as long as the job is active and has not passed to another carrier."""
    return Job.objects.active().filter(pk=job.pk, carrier=job.carrier)


async def _insist(write: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Write, again and again while the database is locked."""
    for pause in BUSY_RETRY_SECONDS:
        try:
            return await _in_thread(write, *args, **kwargs)
        except BUSY_DATABASE:
            logger.warning("the database is busy; trying again in %s s", pause)
            await asyncio.sleep(pause)
    return await _in_thread(write, *args, **kwargs)


async def _in_thread(write: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await database_sync_to_async(write, thread_sensitive=False, executor=_writer)(*args, **kwargs)


BULKY = ("pairs", "datapoints", "items", "texts", "library", "values", "probes", "conversations", "passages")


def _settings_of(request: Any) -> dict[str, Any]:
    """The request with its examples counted: they may be large, and those of a dataset belong to it."""
    settings: dict[str, Any] = request.to_wire()
    return settings | {name: len(settings[name]) for name in BULKY if name in settings}
