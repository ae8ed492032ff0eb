"""What people save in versions, call by name and may share with everyone here: presets, behaviors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from django.db import models
from django.db.models import Q

from inference.types import ModelInfo
from steering.accounts.ownership import OwnedQuerySet
from steering.naming import check_description, version_order

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser

    from steering.accounts.models import User


class VersionQuerySet(OwnedQuerySet):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """What a person may use: their own, those that come with Steerboard, and what others share."""
        if not user.is_authenticated:
            return self.none()
        return self.filter(Q(owner=user.pk) | Q(owner=None) | Q(shared=True))

    def for_model(self, model_id: str) -> Self:
        return self.filter(model_id__iexact=model_id)


class Version(models.Model):
    """One version, for models that also have `owner` and `shared`. `owner` null comes with Steerboard."""

    name: models.CharField
    version: models.CharField
    model_id: models.CharField
    owner_id: int | None

    description = models.TextField(blank=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    def describe(self, description: str) -> None:
        """Its words may change. Raises InvalidRequest."""
        check_description(description)
        self.description = description
        self.save(update_fields=["description"])

    @property
    def is_starter(self) -> bool:
        return self.owner_id is None

    @property
    def order(self) -> tuple[int, int]:
        return version_order(self.version)

    def usable_on(self, model: ModelInfo) -> bool:
        """It acts only on the model it was made on. While the served model is unknown nothing is ruled out."""
        return not model.id or model.id.lower() == self.model_id.lower()
