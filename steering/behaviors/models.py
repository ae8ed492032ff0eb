"""A behavior's row, what it steers with, how often it was seen, and the samples and alerts that come of that."""

from __future__ import annotations

import uuid
from functools import cached_property
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower
from django.urls import reverse
from django.utils import timezone

from steering.accounts.versions import Version, VersionQuerySet
from steering.behaviors.corrector import Corrector
from steering.behaviors.detector import Detector
from steering.datasets.models import Dataset
from steering.naming import MAX_NAME, handle_of
from steering.vectors.models import Vector

if TYPE_CHECKING:
    pass


class Behavior(Version):
    """One version of a behavior. What it detects and does never changes: a change is a new version.

    `detector` is what the fit found, `threshold` where this version sets its mark, `corrector` what is done above it.
    `owner` is null for those that come with Steerboard. A shared behavior is applied with its owner's vectors.
    """

    class Direction(models.TextChoices):
        SUPPRESS = "suppress", "Suppress: act where it shows"
        ENCOURAGE = "encourage", "Encourage: act where it is missing"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="behaviors"
    )
    name = models.CharField(max_length=MAX_NAME)
    version = models.CharField(max_length=12)
    shared = models.BooleanField(default=False)
    model_id = models.CharField(max_length=200)
    direction = models.CharField(max_length=10, choices=Direction)
    dataset = models.ForeignKey(Dataset, null=True, blank=True, on_delete=models.SET_NULL, related_name="behaviors")
    dataset_version = models.PositiveIntegerField(default=0)
    detector = models.JSONField()
    threshold = models.FloatField()
    corrector = models.JSONField()
    vectors = models.ManyToManyField(Vector, through="BehaviorVector", related_name="behaviors")
    keep_samples = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now)

    objects = VersionQuerySet.as_manager()

    class Meta:
        ordering = (F("owner").asc(nulls_last=True), "name", "-created_at")
        constraints = [
            models.UniqueConstraint(
                F("owner"), Lower("model_id"), F("name"), F("version"), name="one_behavior_per_version"
            ),
            models.UniqueConstraint(
                Lower("model_id"),
                F("name"),
                F("version"),
                condition=Q(owner__isnull=True),
                name="one_starter_behavior_per_version",
            ),
        ]

    def get_absolute_url(self) -> str:
        return reverse("behaviors:detail", args=[self.pk])

    @property
    def full_name(self) -> str:
        """What means this version whoever asks, with its owner in it."""
        return f"{handle_of(self.owner)}/{self}"

    @cached_property
    def read(self) -> Detector:
        return Detector(self.detector)

    @cached_property
    def corrects(self) -> Corrector:
        return Corrector.from_wire(self.corrector)


class BehaviorVector(models.Model):
    """That a behavior steers with a vector. RESTRICT: the vector cannot go first, save with its owner's account."""

    behavior = models.ForeignKey(Behavior, on_delete=models.CASCADE)
    vector = models.ForeignKey(Vector, on_delete=models.RESTRICT)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["behavior", "vector"], name="a_vector_once_per_behavior")]

    def __str__(self) -> str:
        return f"{self.behavior_id} steers with {self.vector_id}"


class BehaviorCount(models.Model):
    """What was seen of a behavior on one day (UTC), per person and key. `key` is empty for what pages asked.

    A run is one completion. `fired` counts those in which the detector fired at least once, `tokens` how often it did.
    """

    behavior = models.ForeignKey(Behavior, on_delete=models.CASCADE, related_name="counts")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="behavior_counts")
    key = models.CharField(max_length=36, blank=True)
    day = models.DateField()
    watched = models.BigIntegerField(default=0)
    fired = models.BigIntegerField(default=0)
    tokens = models.BigIntegerField(default=0)

    class Meta:
        ordering = ("-day",)
        constraints = [
            models.UniqueConstraint(fields=["behavior", "user", "key", "day"], name="one_behavior_count_per_day")
        ]

    def __str__(self) -> str:
        return f"{self.behavior_id} on {self.day}"


class AlertRule(models.Model):
    """Raise an alert once a day when more than `percent` of at least `runs` completions fired that day."""

    behavior = models.OneToOneField(Behavior, on_delete=models.CASCADE, related_name="rule")
    percent = models.FloatField(validators=[MinValueValidator(0), MaxValueValidator(100)])
    runs = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    email = models.BooleanField(default=True)

    def __str__(self) -> str:
        return f"more than {self.percent:g} % of {self.runs} runs or more in a day"


class Alert(models.Model):
    """That a rule was broken on a day, and by what. `mailed_at` is null where no mail was sent."""

    behavior = models.ForeignKey(Behavior, on_delete=models.CASCADE, related_name="alerts")
    day = models.DateField()
    percent = models.FloatField()  # the rule's, then
    watched = models.BigIntegerField()
    fired = models.BigIntegerField()
    created_at = models.DateTimeField(default=timezone.now)
    mailed_at = models.DateTimeField(null=True, blank=True)
    seen_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-day", "-created_at")
        verbose_name = "behavior alert"
        constraints = [models.UniqueConstraint(fields=["behavior", "day"], name="one_behavior_alert_per_day")]

    def __str__(self) -> str:
        return f"{self.behavior} on {self.day}"


class SampleQuerySet(models.QuerySet["FiredSample"]):
    def current(self) -> Self:
        return self.filter(expires_at__gt=timezone.now())


class FiredSample(models.Model):
    """A piece of an answer in which a behavior fired: of its owner's own runs alone, and only if they allow it.

    `marks` are [start, end, score, action] over the characters of `text`.
    """

    behavior = models.ForeignKey(Behavior, on_delete=models.CASCADE, related_name="samples")
    text = models.TextField()
    marks = models.JSONField(default=list)
    source = models.CharField(max_length=40)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(db_index=True)

    objects = SampleQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"sample of {self.behavior_id}"
