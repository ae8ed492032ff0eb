"""Stopping what runs, whoever started it: each kind by its own stop, so that it ends as if its owner had pressed it."""

from __future__ import annotations

from uuid import UUID

from inference.errors import NotFound
from steering import gateway
from steering.access.models import LedgerEntry
from steering.audit.models import AuditEntry
from steering.audit.trail import record
from steering.experiments.models import Experiment
from steering.experiments.runner import experiment_cancel
from steering.jobs.models import Job
from steering.jobs.runner import job_cancel
from steering.playground.runner import run_stop


def stop(entry: LedgerEntry) -> None:
    """Stop the work of an open reservation; its carrier then settles what was used.

    Raises NotFound when it has ended, and other InferenceErrors when whoever carries it cannot be reached.
    """
    kind, _, id = entry.work.partition(":")
    if kind == "run" and entry.user is not None:
        gateway.call(run_stop(entry.user, UUID(id), None))
    elif kind == "job":
        _stop_job(UUID(id))
    elif kind == "experiment":
        _stop_experiment(UUID(id))
    else:
        gateway.call(gateway.inference().cancel(entry.work))
    record(
        AuditEntry.Action.WORK_STOPPED,
        f"{entry.work} of {entry.user.email if entry.user else 'an account that is gone'}",
        kind=entry.kind,
        model=entry.model,
        source=entry.source,
    )


def _stop_job(job_id: UUID) -> None:
    job = Job.objects.filter(pk=job_id).first()
    if job is None or not job_cancel(job):
        raise NotFound("already_ended", "This job has ended already.")


def _stop_experiment(experiment_id: UUID) -> None:
    experiment = Experiment.objects.filter(pk=experiment_id).first()
    if experiment is None or not experiment_cancel(experiment):
        raise NotFound("already_ended", "This experiment has ended already.")
