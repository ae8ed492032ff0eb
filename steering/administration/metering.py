"""Keys, limits and the ledger. A key's secret and its digest are nowhere on these pages."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from steering.access.keys import revoke_key
from steering.access.models import ApiKey, LedgerEntry, Limit, LimitFields
from steering.administration.staff import StaffAdmin, is_staff
from steering.audit.models import AuditEntry
from steering.audit.trail import record

LIMITS = ("requests_per_minute", "tokens_per_day", "concurrent_runs")
STATES = {"active": "success", "revoked": "danger", "expired": "warning"}
ENDS = {"open": "info", "settled": "success", "refunded": "warning"}


def _limits(row: LimitFields) -> dict[str, Any]:
    return {name: getattr(row, name) for name in LIMITS}


@admin.register(Limit)
class LimitAdmin(StaffAdmin):
    """Limits in place of the defaults for a person, or of a group for all its members together."""

    fields = ("user", "group", *LIMITS)
    list_display = ("__str__", *LIMITS)
    list_select_related = ("user", "group")
    autocomplete_fields = ("user", "group")
    search_fields = ("user__email", "group__name")
    empty = (
        "No limits of their own",
        "Everyone has the defaults. Set a limit for a person or a group.",
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_staff(request)

    def has_change_permission(self, request: HttpRequest, obj: Limit | None = None) -> bool:
        return is_staff(request)

    def has_delete_permission(self, request: HttpRequest, obj: Limit | None = None) -> bool:
        return is_staff(request)

    def save_model(self, request: HttpRequest, obj: Limit, form: Any, change: bool) -> None:
        before = _limits(Limit.objects.get(pk=obj.pk)) if change else {}
        super().save_model(request, obj, form, change)
        record(AuditEntry.Action.LIMIT_CHANGED, _whose(obj), before=before, after=_limits(obj))

    def delete_model(self, request: HttpRequest, obj: Limit) -> None:
        self.delete_queryset(request, Limit.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Limit]) -> None:
        for limit in queryset:
            record(AuditEntry.Action.LIMIT_REMOVED, _whose(limit), before=_limits(limit))
        super().delete_queryset(request, queryset)


def _whose(limit: Limit) -> str:
    return limit.user.email if limit.user else f"group {limit.group}"


@admin.register(ApiKey)
class KeyAdmin(StaffAdmin):
    """Staff may tighten a key and end it. Its owner makes it, and sees its secret once."""

    fields = (
        "name", "owner", "shown", "state_label", "scopes_listed", "models_allowed", *LIMITS,
        "created_at", "expires_at", "last_used_at", "revoked_at",
    )  # fmt: skip
    list_display = ("name", "owner", "shown", "state_label", "scopes_listed", "last_used_at", "expires_at")
    list_select_related = ("owner",)
    list_filter = (("revoked_at", admin.EmptyFieldListFilter),)
    search_fields = ("name", "prefix", "owner__email")
    actions = ("revoke",)
    empty = ("There are no API keys", "People make them under Keys & usage.")

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return is_staff(request) and (obj is None or obj.revoked_at is None)

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> tuple[str, ...]:
        return tuple(name for name in self.fields if name not in LIMITS)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        before = _limits(ApiKey.objects.get(pk=obj.pk))
        obj.save(update_fields=LIMITS)
        record(
            AuditEntry.Action.LIMIT_CHANGED, f"key {obj} of {obj.owner.email}", before=before, after=_limits(obj)
        )  # fmt: skip

    @admin.action(description="Revoke for good", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        live = list(queryset.filter(revoked_at=None).select_related("owner"))
        for key in live:
            revoke_key(key)
        messages.success(request, f"{len(live)} revoked. Nothing is let in with them, and what ran with them stops.")

    @admin.display(description="Key")
    def shown(self, key: ApiKey) -> str:
        return key.shown

    @display(description="State", label=STATES)
    def state_label(self, key: ApiKey) -> str:
        return key.state

    @admin.display(description="Scopes")
    def scopes_listed(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.display(description="Models")
    def models_allowed(self, key: ApiKey) -> str:
        return ", ".join(key.models) or "all"


@admin.register(LedgerEntry)
class LedgerAdmin(StaffAdmin):
    """What was used. The ledger is the truth, and nobody writes in it."""

    fields = (
        "created_at", "ended_at", "user", "key", "kind", "source", "model", "work", "state_label", "reserved_tokens",
        "prompt_tokens", "completion_tokens",
    )  # fmt: skip
    readonly_fields = ("state_label",)
    list_display = (
        "created_at", "user", "key", "source", "model", "state_label", "prompt_tokens", "completion_tokens",
    )  # fmt: skip
    list_select_related = ("user", "key")
    show_full_result_count = False  # it may have millions of rows
    empty = ("Nothing was used yet", "Each run, request and job is written down here when it begins.")
    list_filter = ("state", "source", "kind")
    search_fields = ("user__email", "key__name", "work", "model")
    actions = None

    @display(description="State", label=ENDS, ordering="state")
    def state_label(self, entry: LedgerEntry) -> str:
        return entry.state
