"""An experiment is a recipe and how far it is; a measurement is one answer of the model, kept by what was asked."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.urls import reverse
from django.utils import timezone

from steering.accounts.ownership import OwnedQuerySet
from steering.accounts.sharing import Shared, SharedQuerySet

CARRIER_SECONDS = 15  # a carrier that was not heard of for so long is gone


class ExperimentQuerySet(SharedQuerySet):
    def active(self) -> Self:
        """Those that have not ended. Every change of state filters on this, so that each ends exactly once."""
        return self.filter(state__in=Experiment.ACTIVE)

    def waiting(self) -> Self:
        """Those that nobody carries: just saved, or left by a process that stopped or is gone. By the database's
        clock, the only one that all share."""
        silent = Now() - timedelta(seconds=CARRIER_SECONDS)
        return self.active().filter(Q(carrier="") | Q(heartbeat_at__lt=silent))


class Experiment(Shared):
    """`settings` are the recipe's, in the form of `settings.py`; `findings` what the pages draw.

    `carrier` is the process that works on it, with a mark of its own for each time that it took it, and `heartbeat_at`
    is when that was last heard of. Tokens are those that were measured for it; what the cache had costs nothing.
    """

    class Recipe(models.TextChoices):
        SWEEP = "sweep"
        FIND = "find"
        EVALUATE = "evaluate"

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    ACTIVE = (State.QUEUED, State.RUNNING)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="experiments")
    recipe = models.CharField(max_length=12, choices=Recipe)
    name = models.CharField(max_length=120)
    settings = models.JSONField(default=dict)
    model_id = models.CharField(max_length=200)
    revision = models.CharField(max_length=200, blank=True)
    state = models.CharField(max_length=12, choices=State, default=State.QUEUED, db_index=True)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    note = models.CharField(max_length=300, blank=True)
    eta_seconds = models.FloatField(null=True, blank=True)
    rate = models.FloatField(default=0)
    findings = models.JSONField(default=dict, blank=True)
    error_code = models.CharField(max_length=80, blank=True)
    error_message = models.TextField(blank=True)
    prompt_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    carrier = models.CharField(max_length=80, blank=True, editable=False)
    heartbeat_at = models.DateTimeField(default=timezone.now, editable=False)
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = ExperimentQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("experiments:detail", args=[self.pk])

    @property
    def is_active(self) -> bool:
        return self.state in self.ACTIVE

    @property
    def seconds(self) -> float | None:
        """From the first measurement to the end; None before it ended."""
        if not self.finished_at:
            return None
        return max(0.0, (self.finished_at - (self.started_at or self.created_at)).total_seconds())

    def status(self) -> dict[str, Any]:
        """What a page needs to draw it while it runs."""
        return {
            "id": str(self.pk), "state": self.state, "done": self.done, "total": self.total, "note": self.note,
            "eta_seconds": self.eta_seconds, "rate": self.rate, "seconds": self.seconds,
            "error_code": self.error_code, "error_message": self.error_message, "findings": self.findings,
        }  # fmt: skip


class Measurement(models.Model):
    """What the model answered to one question. `digest` is the SHA-256 of the question, its model included.

    Measurements belong to a person, so that nobody learns what others have asked, and go with their account.
    """

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="measurements")
    digest = models.CharField(max_length=64)
    kind = models.CharField(max_length=12)
    result = models.JSONField()
    created_at = models.DateTimeField(default=timezone.now)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "digest"], name="a_question_is_measured_once")]

    def __str__(self) -> str:
        return f"{self.kind} {self.digest[:12]}"


class Point(models.Model):
    """One completion of an experiment. `group` is the cell it belongs to, `place` which prompt of it.

    `scores` are what was made of it: the behaviour, the surprise in nats per token under the unsteered model.
    """

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="points")
    group = models.CharField(max_length=120)
    place = models.PositiveIntegerField()
    prompt = models.TextField()
    measurement = models.ForeignKey(Measurement, on_delete=models.CASCADE, related_name="points")
    scores = models.JSONField(default=dict)

    class Meta:
        ordering = ("group", "place")
        constraints = [models.UniqueConstraint(fields=["experiment", "group", "place"], name="a_point_once")]

    def __str__(self) -> str:
        return f"{self.group} {self.place}"
