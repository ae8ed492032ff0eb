"""A dataset is an ordered list of contrastive examples; every change of it makes a new version number."""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

from inference.types import Pair
from steering.accounts.ownership import OwnedQuerySet


class DatasetQuerySet(OwnedQuerySet):
    def with_counts(self) -> DatasetQuerySet:
        """Adds `n_examples`."""
        return self.annotate(n_examples=models.Count("examples"))


class Dataset(models.Model):
    """`owner` is null for starters, which everyone sees and nobody changes. `warnings` is null until linted."""

    class Kind(models.TextChoices):
        PAIRS = "pairs", "prompts with two answers"
        TEXTS = "texts", "pairs of texts"
        CAA = "caa", "CAA questions"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="datasets"
    )
    slug = models.SlugField(max_length=60, blank=True)
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True, max_length=2000)
    kind = models.CharField(max_length=8, choices=Kind, default=Kind.PAIRS)
    version = models.PositiveIntegerField(default=1)
    starter_note = models.CharField(max_length=300, blank=True)
    warnings = models.PositiveIntegerField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    objects = DatasetQuerySet.as_manager()

    class Meta:
        ordering = (models.F("owner").asc(nulls_last=True), "-updated_at", "name")
        constraints = [
            models.UniqueConstraint(
                fields=["slug"], condition=models.Q(owner__isnull=True), name="one_starter_dataset_per_slug"
            )
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("datasets:detail", args=[self.pk])

    @property
    def is_starter(self) -> bool:
        return self.owner_id is None

    def pairs(self) -> tuple[Pair, ...]:
        """The examples in their order, as the model side takes them."""
        rows = self.examples.values_list("prompt", "positive", "negative")
        return tuple(Pair(positive, negative, prompt) for prompt, positive, negative in rows)

    def digest(self) -> str:
        """SHA-256, in hex, of the examples in their order. Name and description are not part of it."""
        return digest_of(self.pairs())


def digest_of(pairs: tuple[Pair, ...]) -> str:
    rows = [[pair.prompt, pair.positive, pair.negative] for pair in pairs]
    canonical = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


class Example(models.Model):
    """`position` counts from 0 without gaps. An empty prompt means that the sides are whole texts."""

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="examples")
    position = models.PositiveIntegerField()
    prompt = models.TextField(blank=True)
    positive = models.TextField()
    negative = models.TextField()

    class Meta:
        ordering = ("position",)
        constraints = [models.UniqueConstraint(fields=["dataset", "position"], name="one_example_per_position")]

    def __str__(self) -> str:
        return f"pair {self.position + 1}"


class ImportDraft(models.Model):
    """An import that is being looked at: the text as it was given, and what was chosen for it so far.

    `columns` maps the roles prompt, positive and negative to column names; empty until someone changes the guess.
    `written` says how the model wrote the pairs (see `asking`); it is empty for what people brought.
    """

    KEPT_PER_PERSON = 5
    KEPT_FOR = timedelta(days=7)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="import_drafts")
    source = models.CharField(max_length=200)
    text = models.TextField()
    columns: models.JSONField[dict[str, Any]] = models.JSONField(default=dict, blank=True)
    header = models.BooleanField(null=True)
    name = models.CharField(max_length=120, blank=True)
    description = models.TextField(blank=True)
    written: models.JSONField[dict[str, Any]] = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.source

    def get_absolute_url(self) -> str:
        return reverse("datasets:review" if self.written else "datasets:preview", args=[self.pk])
