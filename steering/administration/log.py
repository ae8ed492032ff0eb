"""Who did what. Nothing here can be changed or deleted from a page."""

from __future__ import annotations

import json

from django.contrib import admin
from django.contrib.admin.models import LogEntry

from steering.administration.staff import StaffAdmin
from steering.audit.models import AuditEntry


@admin.register(AuditEntry)
class AuditAdmin(StaffAdmin):
    fields = ("at", "action", "actor_name", "target", "facts", "address", "request_id")
    readonly_fields = ("facts",)
    list_display = ("at", "action", "actor_name", "target", "facts", "address")
    list_filter = ("action",)
    search_fields = ("actor_name", "target", "address")
    actions = None
    empty = ("Nothing was done yet", "Keys, limits, rights, models, stops and sign-ins of staff are written down here.")

    @admin.display(description="Details")
    def facts(self, entry: AuditEntry) -> str:
        words = (f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in entry.details.items())
        return ", ".join(words) or "none"


@admin.register(LogEntry)
class LogEntryAdmin(StaffAdmin):
    """What Django notes of every change on these pages."""

    fields = ("action_time", "user", "content_type", "object_repr", "message")
    readonly_fields = ("message",)
    list_display = ("action_time", "user", "content_type", "object_repr", "message")
    list_select_related = ("user", "content_type")
    list_filter = ("action_flag",)
    search_fields = ("object_repr", "user__email")
    actions = None

    @admin.display(description="What")
    def message(self, entry: LogEntry) -> str:
        return entry.get_change_message() or entry.get_action_flag_display()
