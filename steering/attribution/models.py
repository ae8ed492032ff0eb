"""An attribution is a question about two prompts; its parts are the jobs that answer it, and what they found."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

from steering.accounts.sharing import Shared, SharedQuerySet
from steering.jobs.models import Job, Outcome


class Attribution(Shared):
    """`settings` are those of `inference.types.Attribute`, without its id, kind and model."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="attributions")
    name = models.CharField(max_length=120)
    settings = models.JSONField(default=dict)
    model_id = models.CharField(max_length=200)
    revision = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = SharedQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("attribution:detail", args=[self.pk])

    def newest(self, *, whole: bool = True) -> dict[str, Part]:
        """By kind, the part that counts: one that is at work, else the newest that found something, else the newest.

        Without `whole` their findings are not read.
        """
        found: dict[str, Part] = {}
        parts = self.parts.select_related("job")
        for part in parts if whole else parts.defer("findings"):  # newest first
            known = found.get(part.kind)
            if known is None or (part.succeeded and not known.succeeded and not known.is_active):
                found[part.kind] = part
        return found

    def found(self) -> dict[str, Part]:
        """By kind, the newest that found something, whatever is at work."""
        return {part.kind: part for part in self.parts.filter(succeeded=True).order_by("created_at")}


class Part(Outcome):
    """One job of an attribution, and what it found, which stays when the job's row goes.

    `kind` is that of the job's request, `settings` what it adds to the attribution's own. `findings` are the job's
    payload, None until it `succeeded`. They may be large: lists leave them out.
    """

    class Kind(models.TextChoices):
        ATTRIBUTE = "attribute", "Heat maps"
        EXACT = "patch_exactly", "Exact patching"
        FEATURES = "attribute_features", "Features"
        LENS = "logit_lens", "Logit lens"
        DIRECT = "direct_logits", "Direct logit attribution"

    again = "Start this part again."

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    attribution = models.ForeignKey(Attribution, on_delete=models.CASCADE, related_name="parts")
    kind = models.CharField(max_length=20, choices=Kind)
    settings = models.JSONField(default=dict)
    job = models.OneToOneField(Job, null=True, on_delete=models.SET_NULL, related_name="attribution_part")
    succeeded = models.BooleanField(default=False)
    findings = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"{self.get_kind_display()} of {self.attribution}"


class ModelMap(models.Model):
    """The computation graph of a model, the same for everybody: the payload of `inference.types.MapModel`."""

    model_id = models.CharField(max_length=200)
    revision = models.CharField(max_length=200, blank=True)
    findings = models.JSONField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["model_id", "revision"], name="a_model_is_mapped_once")]

    def __str__(self) -> str:
        return f"Map of {self.model_id}"
