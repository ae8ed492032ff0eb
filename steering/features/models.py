"""What people call features. The features themselves live with the model side; only words are kept here."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from steering.accounts.ownership import OwnedQuerySet
from steering.features.training_models import Training as Training

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser

    from steering.accounts.models import User

MAX_LABEL = 200


class LabelQuerySet(OwnedQuerySet):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """One's own, and those that others share in this installation."""
        return self.filter(Q(owner=user.pk) | Q(shared=True)) if user.is_authenticated else self.none()


class FeatureLabel(models.Model):
    """One person's word for one feature of one source. `proposed`: a model wrote it and nobody has changed it since.

    `shared` shows it to everyone here, with its owner's name; a label says what a person thinks, so several people may
    have one each for the same feature.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="feature_labels")
    model_id = models.CharField(max_length=200)
    source = models.CharField(max_length=120)
    index = models.PositiveIntegerField()
    text = models.CharField(max_length=MAX_LABEL)
    proposed = models.BooleanField(default=False)
    shared = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(auto_now=True)

    objects = LabelQuerySet.as_manager()

    class Meta:
        ordering = ("source", "index", "-updated_at")
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "model_id", "source", "index"], name="one_label_per_person_and_feature"
            )
        ]
        indexes = [models.Index(fields=["model_id", "source", "index"])]

    def __str__(self) -> str:
        return self.text
