"""A study: prompts with a base and a steered completion each, those who rate it, and what they said."""

from __future__ import annotations

import secrets
import uuid
from datetime import timedelta
from typing import Any, Self

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.urls import reverse
from django.utils import timezone

from steering.accounts.models import User
from steering.accounts.ownership import OwnedQuerySet

CARRIER_SECONDS = 15  # a carrier that was not heard of for so long is gone


class StudyQuerySet(OwnedQuerySet):
    def open_to(self, user: User | AnonymousUser) -> Self:
        """What a person may rate: their own, and what others opened, by its link."""
        return self.filter(Q(owner=user.pk) | Q(shared=True)) if user.is_authenticated else self.none()

    def abandoned(self) -> Self:
        """Being written by nobody."""
        cut = Now() - timedelta(seconds=CARRIER_SECONDS)
        return self.filter(state=Study.State.WRITING).filter(Q(heartbeat_at=None) | Q(heartbeat_at__lt=cut))


class Study(models.Model):
    """`settings` say what is steered and how, in words for people and as wires for the model side."""

    class State(models.TextChoices):
        WRITING = "writing"
        READY = "ready"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="studies")
    name = models.CharField(max_length=120)
    question = models.CharField(max_length=300)
    model_id = models.CharField(max_length=200)
    settings = models.JSONField(default=dict)
    state = models.CharField(max_length=8, choices=State, default=State.WRITING)
    error_code = models.CharField(max_length=80, blank=True)
    error_message = models.TextField(blank=True)
    shared = models.BooleanField(default=False)
    carrier = models.CharField(max_length=80, blank=True, editable=False)
    heartbeat_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now)

    objects = StudyQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)
        verbose_name_plural = "studies"

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("rating:detail", args=[self.pk])


class Item(models.Model):
    """A prompt with both completions; null while they are not written. `position` counts from 0."""

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="items")
    position = models.PositiveIntegerField()
    prompt = models.TextField()
    seed = models.BigIntegerField()
    base = models.TextField(null=True)  # noqa: DJ001  an empty completion is not a missing one
    steered = models.TextField(null=True)  # noqa: DJ001

    class Meta:
        ordering = ("position",)
        constraints = [models.UniqueConstraint(fields=["study", "position"], name="one_item_per_position")]

    def __str__(self) -> str:
        return f"item {self.position + 1}"

    @property
    def written(self) -> bool:
        return self.base is not None and self.steered is not None

    @property
    def same(self) -> bool:
        """Nobody can tell these apart; they count as a tie and are shown to nobody."""
        return self.base == self.steered


def _shuffled(count: int) -> list[int]:
    order = list(range(count))
    secrets.SystemRandom().shuffle(order)
    return order


class Rater(models.Model):
    """One person's pass through a study: the order and the sides were drawn for them alone.

    `order` are positions of items; `steered_left` says, for each place in that order, on which side the steered one is.
    """

    study = models.ForeignKey(Study, on_delete=models.CASCADE, related_name="raters")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="ratings")
    order = models.JSONField()
    steered_left = models.JSONField()
    revealed_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("created_at",)
        constraints = [models.UniqueConstraint(fields=["study", "user"], name="one_pass_per_rater")]

    def __str__(self) -> str:
        return f"{self.user_id} rates {self.study_id}"

    @classmethod
    def drawn_for(cls, study: Study, user: Any) -> Rater:
        positions = [item.position for item in study.items.all() if not item.same]
        order = [positions[i] for i in _shuffled(len(positions))]
        left = [place % 2 == 0 for place in _shuffled(len(order))]  # as often left as right
        return cls(study=study, user=user, order=order, steered_left=left)


class Answer(models.Model):
    """`side` is what was pressed; which completion that is says the rater's row."""

    class Side(models.TextChoices):
        LEFT = "left"
        RIGHT = "right"
        TIE = "tie"

    rater = models.ForeignKey(Rater, on_delete=models.CASCADE, related_name="answers")
    place = models.PositiveIntegerField()
    side = models.CharField(max_length=5, choices=Side)
    answered_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("place",)
        constraints = [models.UniqueConstraint(fields=["rater", "place"], name="one_answer_per_place")]

    def __str__(self) -> str:
        return f"{self.place + 1}: {self.side}"
