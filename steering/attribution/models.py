"""An attribution is a question about two prompts; its parts are the jobs that answer it, and what they found."""

from __future__ import annotations

import secrets
import uuid
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

from steering.accounts.ownership import OwnedQuerySet
from steering.jobs.models import Job


class AttributionQuerySet(OwnedQuerySet):
    def visible_to(self, user: Any) -> Self:
        """Nobody else's is in anyone's list: who has a link comes by the link."""
        return self.owned_by(user)


class Attribution(models.Model):
    """`settings` are those of `settings.Question`. Whoever knows `share` and is signed in may read."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="attributions")
    name = models.CharField(max_length=120)
    settings = models.JSONField(default=dict)
    model_id = models.CharField(max_length=200)
    revision = models.CharField(max_length=200, blank=True)
    share = models.CharField(max_length=43, null=True, blank=True, unique=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now)

    objects = AttributionQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("attribution:detail", args=[self.pk])

    @staticmethod
    def new_share() -> str:
        return secrets.token_urlsafe(32)


class Part(models.Model):
    """One job of an attribution and what it found, which stays when the job's row goes.

    patching: the heat maps. exact: places patched for real. features: latents at a site. lens: the logit lens.
    direct: direct logit attribution.
    """

    class Kind(models.TextChoices):
        PATCHING = "patching"
        EXACT = "exact"
        FEATURES = "features"
        LENS = "lens"
        DIRECT = "direct"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    attribution = models.ForeignKey(Attribution, on_delete=models.CASCADE, related_name="parts")
    kind = models.CharField(max_length=12, choices=Kind)
    settings = models.JSONField(default=dict)
    job = models.OneToOneField(Job, null=True, on_delete=models.SET_NULL, related_name="attribution_part")
    findings = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"{self.kind} of {self.attribution}"

    @property
    def state(self) -> str:
        if self.findings is not None:
            return str(Job.State.SUCCEEDED)
        return self.job.state if self.job else str(Job.State.FAILED)
