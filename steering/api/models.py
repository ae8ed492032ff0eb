"""Answers to requests that carried an Idempotency-Key, so that one that is sent again is not done again."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.conf import settings
from django.db import models
from django.utils import timezone


class KeptAnswer(models.Model):
    """One creation. `sender` is "user:<id>" or "key:<uuid>"; `key` is the digest of what the client sent as its key.

    While `status` is null the request is being answered, since `claimed_at`. `digest` is of everything it asked for.
    """

    KEPT_FOR = timedelta(hours=24)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    sender = models.CharField(max_length=60)
    key = models.CharField(max_length=64)
    digest = models.CharField(max_length=64)
    claimed_at = models.DateTimeField(default=timezone.now, db_index=True)
    status = models.PositiveSmallIntegerField(null=True)
    body = models.JSONField(null=True)
    headers = models.JSONField(default=dict)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["sender", "key"], name="one_answer_per_idempotency_key")]

    def __str__(self) -> str:
        return f"{self.sender} {self.status or 'running'}"
