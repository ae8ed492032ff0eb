"""Runs and what their lanes wrote. Knows rows; knows no socket and no model."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django.urls import reverse
from django.utils import timezone

from steering.accounts.ownership import OwnedQuerySet
from steering.playground.schema import RunSettings
from steering.shared import LEASE_SECONDS

TITLE_LENGTH = 80


class RunQuerySet(OwnedQuerySet):
    def running(self) -> Self:
        return self.filter(state=Run.State.RUNNING)

    def orphaned(self) -> Self:
        """Running ones whose carrier was not heard of for a lease, by the clock that all share: the database's."""
        return self.running().filter(heartbeat_at__lt=Now() - timedelta(seconds=LEASE_SECONDS))

    def matching(self, words: str) -> Self:
        """Runs whose title or input holds every word of a search."""
        found = self
        for word in words.split():
            found = found.filter(models.Q(title__icontains=word) | models.Q(input__icontains=word))
        return found


class Run(models.Model):
    """One press of Run. `parent` is the turn it continues; runs with the same `turn` are versions of one turn.

    `carrier` is the process that runs the lanes; it renews `heartbeat_at` with every checkpoint, once a second.
    """

    class State(models.TextChoices):
        RUNNING = "running"
        FINISHED = "finished"
        CANCELLED = "cancelled"
        FAILED = "failed"
        INTERRUPTED = "interrupted"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="runs")
    idem = models.UUIDField(editable=False)
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.SET_NULL, related_name="children")
    turn = models.UUIDField(default=uuid.uuid4, editable=False, db_index=True)
    title = models.CharField(max_length=TITLE_LENGTH)
    input = models.TextField()
    settings = models.JSONField()
    state = models.CharField(max_length=12, choices=State, default=State.RUNNING, db_index=True)
    ended_seq = models.PositiveIntegerField(null=True)
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True)
    carrier = models.CharField(max_length=80, blank=True, editable=False)
    heartbeat_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = RunQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)
        indexes = [models.Index(fields=["owner", "-created_at"], name="runs_of_owner_newest_first")]
        constraints = [models.UniqueConstraint(fields=["owner", "idem"], name="one_run_per_press")]

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("playground:run", args=[self.pk])

    @property
    def parsed(self) -> RunSettings:
        return RunSettings.from_wire(self.settings)

    def ancestors(self) -> list[Run]:
        """The turns before this one, first turn first."""
        chain: list[Run] = []
        seen = {self.pk}
        run = self.parent
        while run is not None and run.pk not in seen:
            chain.append(run)
            seen.add(run.pk)
            run = run.parent
        return chain[::-1]

    def versions(self) -> list[uuid.UUID]:
        """All runs of this turn, oldest first."""
        same = Run.objects.filter(owner=self.owner_id, turn=self.turn)
        return list(same.order_by("created_at", "pk").values_list("pk", flat=True))


def _seq(event: dict[str, Any]) -> int:
    return int(event["seq"])


class LaneOutput(models.Model):
    """What one lane of a run wrote. A token is {"seq", "id", "s" (text), "lp", "top"}; seq counts through the run.

    `watched` holds what its watches read and did: {"seq", "t": "scored", "start", "values"} and {"seq", "t": "fired",
    "firings"}; what the columns of the values are stands in `started`, under "watches".
    """

    class State(models.TextChoices):
        RUNNING = "running"
        FINISHED = "finished"
        CANCELLED = "cancelled"
        FAILED = "failed"
        INTERRUPTED = "interrupted"

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="outputs")
    key = models.CharField(max_length=1)
    state = models.CharField(max_length=12, choices=State, default=State.RUNNING)
    text = models.TextField(blank=True)
    tokens = models.JSONField(default=list)
    watched = models.JSONField(default=list)
    started = models.JSONField(null=True)
    ended = models.JSONField(null=True)

    class Meta:
        ordering = ("key",)
        constraints = [models.UniqueConstraint(fields=["run", "key"], name="one_output_per_lane")]

    def __str__(self) -> str:
        return f"{self.run_id}:{self.key}"

    def events(self) -> list[dict[str, Any]]:
        """The stored events of this lane, in order; what a page saw while the lane ran."""
        tokens = [{"t": "token", "lane": self.key, **token} for token in self.tokens]
        between = sorted([*tokens, *({"lane": self.key, **event} for event in self.watched)], key=_seq)
        return [event for event in (self.started, *between, self.ended) if event is not None]

    @property
    def receipt(self) -> dict[str, Any]:
        return (self.ended or {}).get("receipt") or {}

    @property
    def usage(self) -> dict[str, Any]:
        return (self.ended or {}).get("usage") or {}

    @property
    def finish_reason(self) -> str:
        return (self.ended or {}).get("reason") or ""

    @property
    def tokens_per_second(self) -> float:
        return (self.ended or {}).get("rate") or 0.0

    @property
    def error(self) -> dict[str, Any]:
        return (self.ended or {}).get("error") or {}
