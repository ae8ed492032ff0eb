"""A sparse autoencoder that somebody trains here: what it was asked to be, what it reads, and how it stands."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

from steering.accounts.ownership import OwnedQuerySet
from steering.jobs.models import Job


class Training(models.Model):
    """`recipe` holds fields of `TrainSae`; `data` says where the text is from; `texts` is what was there when it began.

    `chats` are the conversations that the model wrote for it, kept so that a training that is gone on with reads the
    same. `facts` are those of the result. `job` is the latest of its jobs: going on makes another.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="trainings")
    job = models.ForeignKey(Job, null=True, on_delete=models.SET_NULL, related_name="trainings")
    model_id = models.CharField(max_length=200)
    source = models.CharField(max_length=120)
    recipe = models.JSONField(default=dict)
    data = models.JSONField(default=dict)
    texts = models.JSONField(default=list)
    chats = models.JSONField(default=list)
    facts = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.source

    def get_absolute_url(self) -> str:
        return reverse("features:training", args=[self.pk])

    @property
    def cut_off(self) -> bool:
        """Whether it can be gone on with: it did not end, or it was asked to end early."""
        if self.job is None or self.job.is_active:
            return False
        return self.job.state != Job.State.SUCCEEDED or bool(self.trained.get("stopped_early"))

    @property
    def trained(self) -> dict[str, Any]:
        found = self.facts.get("trained")
        return found if isinstance(found, dict) else {}
