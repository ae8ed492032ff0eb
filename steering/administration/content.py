"""What people made here: to look at, not to change. Texts of datasets, runs and prompts are not shown."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from steering.administration.staff import StaffAdmin
from steering.audit.models import AuditEntry
from steering.audit.trail import record
from steering.datasets.models import Dataset
from steering.experiments.models import Experiment
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


@admin.register(Experiment)
class ExperimentAdmin(ContentAdmin):
    fields = ("name", "owner", "recipe", "state", "model_id", "done", "total", "created_at", "finished_at")
    list_display = ("name", "owner", "recipe", "state", "done", "total", "created_at")
    list_filter = ("recipe", "state")
    empty = ("There are none yet", "People start them on the page Experiments.")
