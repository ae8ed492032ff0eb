"""What people made here: to look at, not to change. Texts of datasets, runs and prompts are not shown."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from steering.administration.staff import StaffAdmin
from steering.audit.models import AuditEntry
from steering.audit.trail import record
from steering.behaviors.library import share as share_behavior
from steering.behaviors.models import Alert, Behavior
from steering.behaviors.monitoring import sums_of
from steering.behaviors.words import action_in_words
from steering.datasets.models import Dataset
from steering.experiments.models import Experiment
from steering.policies.library import share as share_policy
from steering.policies.models import PolicyPreset, StoredPolicy
from steering.presets.models import Preset
from steering.vectors.models import Vector


class ContentAdmin(StaffAdmin):
    list_filter: tuple[Any, ...] = (("owner", admin.EmptyFieldListFilter),)
    actions: tuple[str, ...] | None = None
    list_select_related = ("owner",)
    search_fields = ("name", "owner__email")
    empty = ("There are none yet", "People make them on the pages of Steerboard.")


@admin.register(Dataset)
class DatasetAdmin(ContentAdmin):
    fields = ("name", "owner", "kind", "version", "created_at", "updated_at")
    list_display = ("name", "owner", "kind", "version", "updated_at")


@admin.register(Vector)
class VectorAdmin(ContentAdmin):
    fields = ("name", "owner", "model_id", "method", "dataset", "dataset_version", "content_id", "created_at")
    list_display = ("name", "owner", "model_id", "method", "created_at")


@admin.register(Preset)
class PresetAdmin(ContentAdmin):
    fields = ("name", "version", "owner", "shared", "model_id", "description", "used", "created_at")
    readonly_fields = ("used",)
    list_display = ("__str__", "owner", "shared", "model_id", "created_at")
    list_filter = ("shared", ("owner", admin.EmptyFieldListFilter))
    actions = ("unshare",)

    @admin.display(description="Vectors")
    def used(self, preset: Preset) -> str:
        return ", ".join(vector.name for vector in preset.vectors.all()) or "none"

    @admin.action(description="End sharing", permissions=["view"])
    def unshare(self, request: HttpRequest, queryset: QuerySet[Preset]) -> None:
        shared = list(queryset.filter(shared=True).select_related("owner"))
        for preset in shared:
            Preset.objects.filter(pk=preset.pk).update(shared=False)
            record(AuditEntry.Action.PRESET_UNSHARED, f"{preset} of {preset.owner}")
        messages.success(request, f"{len(shared)} not shared any more. Their owners still have them.")


@admin.register(Behavior)
class BehaviorAdmin(ContentAdmin):
    """What is watched for, and how often it fired for everybody together. Samples are the owner's and not shown."""

    fields = (
        "name", "version", "owner", "shared", "model_id", "direction", "does", "threshold", "description",
        "keep_samples", "seen", "created_at",
    )  # fmt: skip
    readonly_fields = ("does", "seen")
    list_display = ("__str__", "owner", "shared", "direction", "does", "seen", "created_at")
    list_filter = ("shared", "direction", ("owner", admin.EmptyFieldListFilter))
    actions = ("unshare",)
    empty = ("There are none yet", "People fit them on the page Behaviors.")

    @admin.display(description="Where it fires")
    def does(self, behavior: Behavior) -> str:
        return action_in_words(behavior.corrects)

    @admin.display(description="Fired, 30 days")
    def seen(self, behavior: Behavior) -> str:
        watched, fired = sums_of(behavior, 30)
        return f"{fired:,} of {watched:,} runs" if watched else "no runs"

    @admin.action(description="End sharing", permissions=["view"])
    def unshare(self, request: HttpRequest, queryset: QuerySet[Behavior]) -> None:
        shared = list(queryset.filter(shared=True).select_related("owner"))
        for behavior in shared:
            share_behavior(behavior, False)
        messages.success(request, f"{len(shared)} not shared any more. Their owners still have them.")


@admin.register(Alert)
class AlertAdmin(StaffAdmin):
    """Days on which a behavior fired more often than its owner's rule allows."""

    fields = ("behavior", "day", "fired", "watched", "percent", "mailed_at", "seen_at", "created_at")
    list_display = ("behavior", "owner", "day", "fired", "watched", "percent", "mailed_at", "seen_at")
    list_filter = ("day", ("seen_at", admin.EmptyFieldListFilter))
    list_select_related = ("behavior__owner",)
    empty = ("No alerts", "People set rules on the monitoring page of a behavior; what breaks one shows here.")

    @admin.display(description="Owner")
    def owner(self, alert: Alert) -> str:
        return str(alert.behavior.owner or "Steerboard")


@admin.register(Experiment)
class ExperimentAdmin(ContentAdmin):
    fields = ("name", "owner", "recipe", "state", "model_id", "done", "total", "created_at", "finished_at")
    list_display = ("name", "owner", "recipe", "state", "done", "total", "created_at")
    list_filter = ("recipe", "state")
    empty = ("There are none yet", "People start them on the page Experiments.")


@admin.register(StoredPolicy)
class PolicyAdmin(ContentAdmin):
    """Policies by name; what people run with them is not shown."""

    fields = ("name", "version", "owner", "shared", "model_id", "description", "created_at")
    list_display = ("__str__", "owner", "shared", "model_id", "created_at")
    list_filter = ("shared", ("owner", admin.EmptyFieldListFilter))
    actions = ("unshare",)
    empty = ("There are none yet", "People write them on the page Policies.")

    @admin.action(description="End sharing", permissions=["view"])
    def unshare(self, request: HttpRequest, queryset: QuerySet[StoredPolicy]) -> None:
        shared = list(queryset.filter(shared=True).select_related("owner"))
        for policy in shared:
            share_policy(policy, False)
        messages.success(request, f"{len(shared)} not shared any more. Their owners still have them.")


@admin.register(PolicyPreset)
class PolicyPresetAdmin(ContentAdmin):
    fields = ("name", "owner", "visibility", "tags", "description", "created_at")
    list_display = ("name", "owner", "visibility", "created_at")
    list_filter = ("visibility",)
    empty = ("There are none yet", "People publish them on the page of a policy.")
