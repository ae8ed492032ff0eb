"""A stored policy, the presets that people publish of them, and what they did with them."""

from __future__ import annotations

import uuid
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone

from inference.policies.schema import Policy
from steering.accounts.ownership import OwnedQuerySet
from steering.accounts.versions import Version, VersionQuerySet
from steering.jobs.models import Job, Outcome
from steering.naming import MAX_NAME, handle_of
from steering.vectors.models import Vector

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser

    from steering.accounts.models import User


class StoredPolicy(Version):
    """One version of a policy. What it says never changes: a change is a new version.

    `content` is the policy as JSON, in the form of `inference.policies.schema`. `model_id` is the model that its
    steering was made on, empty where it works on any. `owner` is null for those that come with Steerboard. A shared
    policy is run with its owner's vectors.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="policies"
    )
    name = models.CharField(max_length=MAX_NAME)
    version = models.CharField(max_length=12)
    shared = models.BooleanField(default=False)
    model_id = models.CharField(max_length=200, blank=True)
    content = models.JSONField()
    vectors = models.ManyToManyField(Vector, through="PolicyVector", related_name="policies")
    created_at = models.DateTimeField(default=timezone.now)

    objects = VersionQuerySet.as_manager()

    class Meta:
        ordering = (F("owner").asc(nulls_last=True), "name", "-created_at")
        verbose_name = "policy"
        verbose_name_plural = "policies"
        constraints = [
            models.UniqueConstraint(fields=["owner", "name", "version"], name="one_policy_per_version"),
            models.UniqueConstraint(
                fields=["name", "version"],
                condition=Q(owner__isnull=True),
                name="one_starter_policy_per_version",
            ),
        ]

    def get_absolute_url(self) -> str:
        return reverse("policies:detail", args=[self.pk])

    @property
    def full_name(self) -> str:
        """What means this version whoever asks, with its owner in it."""
        return f"{handle_of(self.owner)}/{self}"

    @cached_property
    def parsed(self) -> Policy:
        return Policy.parse(self.content)


class PolicyVector(models.Model):
    """That a policy steers with a vector. RESTRICT: the vector cannot go first, save with its owner's account."""

    policy = models.ForeignKey(StoredPolicy, on_delete=models.CASCADE)
    vector = models.ForeignKey(Vector, on_delete=models.RESTRICT)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["policy", "vector"], name="a_vector_once_per_policy")]

    def __str__(self) -> str:
        return f"{self.policy_id} steers with {self.vector_id}"


class PresetQuerySet(OwnedQuerySet):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """One's own, and those that others have published for all."""
        if not user.is_authenticated:
            return self.none()
        return self.filter(Q(owner=user.pk) | Q(visibility=PolicyPreset.Visibility.PUBLIC))


class PolicyPreset(models.Model):
    """A policy as it was when it was published, to be cloned. It changes no more than a version does."""

    class Visibility(models.TextChoices):
        PRIVATE = "private", "Only you"
        PUBLIC = "public", "Everyone here"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="policy_presets")
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    tags = models.JSONField(default=list, blank=True)
    visibility = models.CharField(max_length=8, choices=Visibility, default=Visibility.PRIVATE)
    content = models.JSONField()
    created_at = models.DateTimeField(default=timezone.now)

    objects = PresetQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.name

    @property
    def is_public(self) -> bool:
        return self.visibility == self.Visibility.PUBLIC


class PolicyRun(Outcome):
    """Something done with policies: run on a prompt, compared, evaluated over prompts, tuned, replayed.

    `policies` are those that take part, each {"name", "policy_id", "policy"}, as they were then. `asked` is the rest
    of what was asked; see `work.py`. The work itself is a job; what it found is kept in `result` and outlives the job.
    """

    class Kind(models.TextChoices):
        RUN = "run", "Run"
        COMPARE = "compare", "Comparison"
        EVALUATE = "evaluate", "Evaluation"
        TUNE = "tune", "Auto-tune"
        REPLAY = "replay", "Replay"

    again = "Run it again."

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="policy_runs")
    kind = models.CharField(max_length=10, choices=Kind)
    title = models.CharField(max_length=200)
    model_id = models.CharField(max_length=200)
    policies = models.JSONField(default=list)
    asked = models.JSONField(default=dict)
    job = models.OneToOneField(Job, null=True, on_delete=models.SET_NULL, related_name="policy_run")
    succeeded = models.BooleanField(default=False)
    result = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("policies:run", args=[self.pk])

    @property
    def found(self) -> dict[str, Any]:
        """What is known: the result, or what the job has so far, also where it ended early."""
        if self.result is not None:
            return self.result
        return dict(self.job.facts.get("found", {})) if self.job else {}
