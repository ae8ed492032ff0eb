from __future__ import annotations

from django.contrib import admin

from steering.access.models import Limit


@admin.register(Limit)
class LimitAdmin(admin.ModelAdmin):
    """Limits in place of the defaults for a person, or of a group for all its members together."""

    fields = ["user", "group", "requests_per_minute", "tokens_per_day", "concurrent_runs"]
    list_display = ["__str__", "requests_per_minute", "tokens_per_day", "concurrent_runs"]
    autocomplete_fields = ["user", "group"]
