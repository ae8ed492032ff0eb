"""A job is one row that says how far some long work is and how it ended."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django.urls import reverse
from django.utils import timezone

from inference.types import OptimiseVector
from steering.accounts.ownership import OwnedQuerySet

KEEPS_BEST = (OptimiseVector.kind, "train_source")  # kinds that can end early with the best they have
CARRIER_SECONDS = 15  # a carrier that was not heard of for so long is gone
MESSAGE_SECONDS = 12  # a job that nobody took for so long is looked for on the queue, and put there again if it is gone


class JobQuerySet(OwnedQuerySet):
    def active(self) -> JobQuerySet:
        """Jobs that have not ended. Every change of state filters on this, so that a job ends exactly once."""
        return self.filter(state__in=Job.ACTIVE)

    def ended(self) -> JobQuerySet:
        return self.exclude(state__in=Job.ACTIVE)

    def orphaned(self) -> JobQuerySet:
        """Jobs that had begun, and whose carrier is gone. By the database's clock, the only one that all share."""
        return self.filter(state=Job.State.RUNNING, heartbeat_at__lt=_ago(CARRIER_SECONDS))

    def forgotten(self) -> JobQuerySet:
        """Jobs that have not begun and will not: their message is lost, or the process that took them."""
        waiting = self.filter(state=Job.State.QUEUED)
        return waiting.filter(
            models.Q(carrier="", heartbeat_at__lt=_ago(MESSAGE_SECONDS))
            | (~models.Q(carrier="") & models.Q(heartbeat_at__lt=_ago(CARRIER_SECONDS)))
        )


def _ago(seconds: float) -> Any:
    return Now() - timedelta(seconds=seconds)


class Job(models.Model):
    """`facts` are those of the last Progress: what a page draws while the job runs, such as a loss curve.

    Where several processes share the work, `work` is the whole request, kept until the job ends, `carrier` is the
    process that has it, with a mark of its own for each time that it took it, and `heartbeat_at` is when that was last
    heard of, or when the job was last known to be on the queue.
    """

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    ACTIVE = (State.QUEUED, State.RUNNING)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.CASCADE, related_name="jobs")
    kind = models.CharField(max_length=40)
    title = models.CharField(max_length=200)
    state = models.CharField(max_length=12, choices=State, default=State.QUEUED, db_index=True)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    note = models.CharField(max_length=300, blank=True)
    eta_seconds = models.FloatField(null=True, blank=True)
    facts = models.JSONField(default=dict, blank=True)
    error_code = models.CharField(max_length=80, blank=True)
    error_message = models.TextField(blank=True)
    request = models.JSONField(default=dict, blank=True)
    result = models.JSONField(default=dict, blank=True)
    result_url = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    work = models.JSONField(null=True, editable=False)
    carrier = models.CharField(max_length=80, blank=True, editable=False)
    heartbeat_at = models.DateTimeField(default=timezone.now, editable=False)

    used_tokens = 0  # no columns: what a kind's keeper found that the job has read and written, to be settled
    written_tokens = 0

    objects = JobQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("jobs:detail", args=[self.pk])

    @property
    def is_active(self) -> bool:
        return self.state in self.ACTIVE

    @property
    def keeps_best(self) -> bool:
        return self.kind in KEEPS_BEST

    @property
    def seconds(self) -> float | None:
        """How long the work took, waiting left out; None before it ended."""
        if not self.finished_at:
            return None
        return max(0.0, (self.finished_at - (self.started_at or self.created_at)).total_seconds())

    def status(self) -> dict[str, Any]:
        """What a page needs to draw this job; the JSON of `jobs:status`."""
        return {
            "id": str(self.pk),
            "title": self.title,
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "note": self.note,
            "eta_seconds": self.eta_seconds,
            "facts": self.facts,
            "seconds": self.seconds,
            "error_code": self.error_code,
            "error_message": self.error_message,
            "result_url": self.result_url,
        }


class Outcome(models.Model):
    """What a job found, for models that have `job`, null once its row is gone, and `succeeded`, which outlives it.

    `again` is what to do where the job was deleted before it ended. Read it together with its job (select_related): a
    job read later may have ended in between, and then seems to have succeeded and found nothing.
    """

    job: Job | None
    succeeded: bool
    again: ClassVar[str]

    class Meta:
        abstract = True

    @property
    def state(self) -> str:
        if self.succeeded:
            return str(Job.State.SUCCEEDED)
        return self.job.state if self.job else str(Job.State.FAILED)

    @property
    def is_active(self) -> bool:
        return self.state in Job.ACTIVE

    @property
    def error(self) -> dict[str, str] | None:
        """Why there is nothing, where there will be nothing."""
        if self.state != Job.State.FAILED:
            return None
        if self.job is None:
            return {"code": "job_deleted", "message": f"The job was deleted before it ended. {self.again}"}
        return {"code": self.job.error_code, "message": self.job.error_message}
