"""What programs of others have chosen here."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from steering.access.models import ApiKey


class ModelChoice(models.Model):
    """The model that a key works with; without a key, all of the person's keys that have no choice of their own."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    key = models.OneToOneField(ApiKey, null=True, on_delete=models.CASCADE, related_name="+")
    model_id = models.CharField(max_length=200)

    class Meta:
        verbose_name = "model of a key"
        verbose_name_plural = "models of keys"
        constraints = [models.UniqueConstraint(fields=["owner"], condition=Q(key=None), name="one_model_per_person")]

    def __str__(self) -> str:
        return self.model_id
