"""A collection holds documents; a question is one answer from some of them, with what it rests on."""

from __future__ import annotations

import uuid
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from steering.accounts.ownership import OwnedQuerySet
from steering.jobs.models import Job, Outcome

LONGEST_NAME = 120
LONGEST_TITLE = 200


class CollectionQuerySet(OwnedQuerySet):
    def visible_to(self, user: Any) -> Self:
        """One's own, and those that others share: to be read and asked, not changed."""
        return self.filter(Q(owner=user.pk) | Q(shared=True)) if user.is_authenticated else self.none()


class Collection(models.Model):
    """`version` grows with every change of its documents."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="collections")
    name = models.CharField(max_length=LONGEST_NAME)
    description = models.TextField(max_length=1000, blank=True)
    shared = models.BooleanField(default=False)
    version = models.PositiveIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(default=timezone.now)

    objects = CollectionQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)
        constraints = [models.UniqueConstraint(fields=["owner", "name"], name="a_collection_name_is_ones_own")]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("retrieval:collection", args=[self.pk])


class Document(models.Model):
    """`text` as it came; markup in it is text."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    collection = models.ForeignKey(Collection, on_delete=models.CASCADE, related_name="documents")
    title = models.CharField(max_length=LONGEST_TITLE)
    text = models.TextField()
    characters = models.PositiveIntegerField(editable=False)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("created_at", "id")

    def __str__(self) -> str:
        return self.title


class QuestionQuerySet(OwnedQuerySet):
    def visible_to(self, user: Any) -> Self:
        return self.owned_by(user)


class Question(Outcome):
    """`settings` is the request of `inference.raag.AnswerFromPassages` without id, kind and model, and what it was made
    of: "collection" (name), "way", "k", "steered_by". `findings` are the job's payload, None until it `succeeded`."""

    again = "Ask again."

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="questions")
    collection = models.ForeignKey(Collection, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    text = models.TextField(max_length=2000)
    settings = models.JSONField(default=dict)
    model_id = models.CharField(max_length=200)
    revision = models.CharField(max_length=200, blank=True)
    job = models.OneToOneField(Job, null=True, on_delete=models.SET_NULL, related_name="raag_question")
    succeeded = models.BooleanField(default=False)
    findings = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = QuestionQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.text[:80]

    def get_absolute_url(self) -> str:
        return reverse("retrieval:question", args=[self.pk])
