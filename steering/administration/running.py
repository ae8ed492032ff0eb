"""What runs now, with a button that stops it."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from inference.errors import InferenceError
from steering.access.models import LedgerEntry
from steering.administration.models import RunningWork
from steering.administration.staff import StaffAdmin
from steering.administration.stopping import stop

BUTTON = "stop"


@admin.register(RunningWork)
class RunningAdmin(StaffAdmin):
    fields = ("created_at", "user", "key", "kind", "source", "model", "work", "reserved_tokens", "carrier")
    list_display = ("since", "user", "key", "kind", "source", "model", "reserved_tokens", "stop_button")
    list_display_links = None
    list_select_related = ("user", "key")
    list_filter = ("source", "kind")
    search_fields = ("user__email", "key__name", "work", "model")
    actions = None
    empty = ("Nothing runs at the moment", "Runs, requests and jobs are here from their first to their last moment.")

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).filter(state=LedgerEntry.State.OPEN)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if request.method == "POST" and BUTTON in request.POST:
            _press(request, request.POST[BUTTON])
            return redirect(request.get_full_path())
        return super().changelist_view(request, extra_context)

    @admin.display(description="Running for", ordering="-created_at")
    def since(self, entry: LedgerEntry) -> str:
        seconds = int((timezone.now() - entry.created_at).total_seconds())
        return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"

    @admin.display(description="Stop")
    def stop_button(self, entry: LedgerEntry) -> SafeString:
        return format_html(
            '<button class="stop-button" name="{}" value="{}" aria-label="Stop the {} of {}">Stop</button>',
            BUTTON, entry.pk, entry.kind, entry.user or "an account that is gone",
        )  # fmt: skip


def _press(request: HttpRequest, id: str) -> None:
    try:
        entry = LedgerEntry.objects.open().select_related("user").filter(pk=id).first()
    except ValidationError:
        entry = None
    if entry is None:
        messages.info(request, "This has ended already.")
        return
    try:
        stop(entry)
    except InferenceError as error:
        messages.error(request, f"{error.message} ({error.code})")
    else:
        messages.success(request, f"The {entry.kind} of {entry.user} was stopped. What it wrote so far stays.")
