"""What a job is charged: a place while it is active, and the tokens it read where its kind reports them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from steering.access import admission
from steering.access.models import LedgerEntry
from steering.access.principal import Principal
from steering.jobs.models import Job

WORK = "job:"
SETTLING = timedelta(minutes=1)


def reserve_job(who: Principal, job: Job, model: str, tokens: int, source: str) -> None:
    """Raises Denied(429). In the transaction that saves the job. Whoever carries the job ends the reservation."""
    work = f"{WORK}{job.pk}"
    admission.reserve(who, work=work, kind="job", model=model, tokens=tokens, source=source, carrier="")


def settle_job(job: Job) -> None:
    """In the transaction that ends the job."""
    if entry := admission.open_of(f"{WORK}{job.pk}"):
        admission.settle(entry.pk, prompt_tokens=job.used_tokens, completion_tokens=job.written_tokens)


def end_unfinished(job_id: UUID) -> None:
    """What a job used is charged where its facts say so (`prompt_tokens`, `completion_tokens`): a recipe that was
    cancelled or failed has written all the same. Other kinds get everything back.
    """
    if entry := admission.open_of(f"{WORK}{job_id}"):
        facts = Job.objects.filter(pk=job_id).values_list("facts", flat=True).first() or {}
        used = {name: facts.get(name, 0) for name in ("prompt_tokens", "completion_tokens")}
        if any(used.values()):
            admission.settle(entry.pk, **used)
        else:
            admission.refund(entry.pk)


def jobs_held_by(key: Any) -> list[Job]:
    """The active jobs that were started with a key."""
    held = admission.running().filter(key=key, kind="job").values_list("work", flat=True)
    return list(Job.objects.active().filter(pk__in=[work.removeprefix(WORK) for work in held]))


@transaction.atomic
def refund_ended_jobs() -> None:
    """Give back what jobs hold that ended without it, as when their rows were deleted."""
    old = LedgerEntry.objects.open().filter(kind="job", created_at__lt=timezone.now() - SETTLING)
    held = {UUID(work.removeprefix(WORK)): pk for pk, work in old.values_list("pk", "work")}
    active = set(Job.objects.active().filter(pk__in=held).values_list("pk", flat=True))
    for job_id in held.keys() - active:
        admission.refund(held[job_id])
