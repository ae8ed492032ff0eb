"""Who may do what on the admin pages. There are two roles, and Django's permissions per model are not used.

Staff (`is_staff`) sees all that is here and keeps the installation going: accounts of others than staff, limits, keys,
running work. A superuser also decides who is staff, who is a superuser, and who is in which group.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin


class StaffAdmin(ModelAdmin):
    """Read-only for staff unless a class says otherwise."""

    compressed_fields = True
    list_filter_submit = True
    empty: tuple[str, str] = ("Nothing here yet", "")  # what an empty list says, and what to do about it

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_staff(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_staff(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def is_staff(request: HttpRequest) -> bool:
    return bool(request.user.is_active and getattr(request.user, "is_staff", False))


def is_superuser(request: HttpRequest) -> bool:
    return is_staff(request) and bool(getattr(request.user, "is_superuser", False))


def unregister(*models: Any) -> None:
    """Take off the site what others put there: secrets, and what only their owners decide."""
    for model in models:
        if admin.site.is_registered(model):
            admin.site.unregister(model)
