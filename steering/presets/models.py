"""A preset's row, and which vectors it uses."""

from __future__ import annotations

import uuid
from functools import cached_property

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower
from django.urls import reverse
from django.utils import timezone

from steering.accounts.versions import Version, VersionQuerySet
from steering.naming import MAX_NAME, handle_of
from steering.presets.content import PresetContent
from steering.presets.names import join_model_name
from steering.vectors.models import Vector


class Preset(Version):
    """One version of a preset. What it does never changes: a change is a new version.

    `owner` is null for those that come with Steerboard, which everyone sees and nobody changes. A shared preset is
    applied with its owner's vectors; see `steering.presets.library`.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="presets"
    )
    name = models.CharField(max_length=MAX_NAME)
    version = models.CharField(max_length=12)
    shared = models.BooleanField(default=False)
    model_id = models.CharField(max_length=200)
    content = models.JSONField()
    vectors = models.ManyToManyField(Vector, through="PresetVector", related_name="presets")
    created_at = models.DateTimeField(default=timezone.now)

    objects = VersionQuerySet.as_manager()

    class Meta:
        ordering = (F("owner").asc(nulls_last=True), "name", "-created_at")
        constraints = [
            models.UniqueConstraint(
                F("owner"),
                Lower("model_id"),
                F("name"),
                F("version"),
                name="one_preset_per_version",
            ),
            models.UniqueConstraint(
                Lower("model_id"),
                F("name"),
                F("version"),
                condition=Q(owner__isnull=True),
                name="one_starter_preset_per_version",
            ),
        ]

    def get_absolute_url(self) -> str:
        return reverse("presets:detail", args=[self.pk])

    @cached_property
    def parsed(self) -> PresetContent:
        return PresetContent.from_wire(self.content)

    @property
    def model_name(self) -> str:
        """What its owner writes as a model's name; everyone else too, where no other preset has this name."""
        return join_model_name(self.model_id, self.name, self.version)

    @property
    def full_model_name(self) -> str:
        """What means this preset whoever asks, with its owner in it."""
        return join_model_name(self.model_id, f"{self.owner_handle}/{self.name}", self.version)

    @property
    def verdict(self) -> str:
        """What was measured of one that comes with Steerboard: works, weak or fails; empty where nothing was."""
        if self.owner_id is not None:
            return ""
        return next((str(v.evaluation["verdict"]) for v in self.vectors.all() if v.evaluation), "")

    @property
    def owner_handle(self) -> str:
        return handle_of(self.owner)


class PresetVector(models.Model):
    """That a preset uses a vector. RESTRICT: the vector cannot go before the preset, save with its owner's account."""

    preset = models.ForeignKey(Preset, on_delete=models.CASCADE)
    vector = models.ForeignKey(Vector, on_delete=models.RESTRICT)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["preset", "vector"], name="a_vector_once_per_preset")]

    def __str__(self) -> str:
        return f"{self.preset_id} uses {self.vector_id}"
