"""A vector's row: its name, where it came from, its figures. The numbers themselves live on the model side."""

from __future__ import annotations

import uuid
from datetime import timedelta
from functools import cached_property
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

from inference.types import ModelInfo
from steering.accounts.ownership import OwnedQuerySet
from steering.datasets.models import Dataset
from steering.datasets.starter_catalog import starter
from steering.vectors.facts import Facts
from steering.vectors.methods import name_of


class VectorQuerySet(OwnedQuerySet):
    def in_library_order(self) -> Self:
        """One's own first, the newest on top; then starters, those first that were measured to work."""
        return self.order_by(models.F("owner").asc(nulls_last=True), "-evaluation__verdict", "-created_at", "name")


class Vector(models.Model):
    """`owner` is null for starters, which everyone sees and nobody changes. `content_id` names the stored bytes."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="vectors"
    )
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    slug = models.SlugField(max_length=60, blank=True)
    content_id = models.CharField(max_length=80, db_index=True)
    model_id = models.CharField(max_length=200)
    revision = models.CharField(max_length=200, blank=True)
    method = models.CharField(max_length=60)
    dataset = models.ForeignKey(Dataset, null=True, blank=True, on_delete=models.SET_NULL, related_name="vectors")
    dataset_version = models.PositiveIntegerField(default=0)
    summary = models.JSONField(default=dict)
    evaluation = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = VectorQuerySet.as_manager()

    class Meta:
        ordering = (models.F("owner").asc(nulls_last=True), "-created_at", "name")
        constraints = [
            models.UniqueConstraint(
                fields=["slug", "model_id"],
                condition=models.Q(owner__isnull=True),
                name="one_starter_vector_per_slug_and_model",
            )
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("vectors:detail", args=[self.pk])

    @property
    def is_starter(self) -> bool:
        return self.owner_id is None

    @cached_property
    def facts(self) -> Facts:
        return Facts(self.summary)

    @property
    def method_name(self) -> str:
        return name_of(self.method)

    @property
    def tagline(self) -> str:
        """A few words on what it is for."""
        known = starter(self.slug) if self.is_starter else None
        return known.tagline if known else self.description

    def usable_on(self, model: ModelInfo) -> bool:
        """A vector acts only on the model it was made on. While the served model is unknown nothing is ruled out."""
        return not model.id or model.id == self.model_id

    def playground_facts(self, *, usable: bool) -> dict[str, Any]:
        """The JSON with which the playground draws its pickers and sliders."""
        facts = self.facts
        return {
            "id": str(self.pk),
            "content_id": self.content_id,
            "name": self.name,
            "tagline": self.tagline,
            "verdict": self.evaluation.get("verdict", ""),
            "slug": self.slug,
            "starter": self.is_starter,
            "model_id": self.model_id,
            "usable": usable,
            "recommended_layer": facts.layer,
            "recommended_strength": facts.strength,
            "recommended_operation": facts.operation,
            "recommended_dose": facts.dose,
            "layers": facts.layers,
            "residual_norms": facts.residual_norms,
            "norms": facts.norms,
            "affine_layers": facts.affine_layers,
            "map_layers": facts.map_layers,
        }


class VectorDraft(models.Model):
    """A file of another program that is being looked at, as it was uploaded."""

    KEPT_PER_PERSON = 5
    KEPT_FOR = timedelta(days=7)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="vector_drafts")
    filename = models.CharField(max_length=200)
    name = models.CharField(max_length=120)
    data = models.BinaryField()
    created_at = models.DateTimeField(default=timezone.now)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.filename

    def get_absolute_url(self) -> str:
        return reverse("vectors:draft", args=[self.pk])
