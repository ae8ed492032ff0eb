"""Accounts and groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import Group
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from steering.accounts import deletion
from steering.accounts.emails import vouch_for
from steering.accounts.models import User
from steering.administration.staff import StaffAdmin, is_staff, is_superuser, unregister
from steering.audit.models import AuditEntry
from steering.audit.trail import record

unregister(EmailAddress, Authenticator, UserSession, Group)

RIGHTS = ("is_active", "is_staff", "is_superuser", "groups")
SUPERUSERS_DECIDE = ("is_staff", "is_superuser", "groups")


class UserForm(forms.ModelForm):
    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        rights = {name: data.get(name, getattr(self.instance, name)) for name in ("is_superuser", "is_active")}
        leaves = bool(self.instance.pk) and self.instance.is_active and not all(rights.values())
        if leaves and deletion.is_last_administrator(self.instance):
            raise forms.ValidationError("This is the last administrator. Make someone else a superuser first.")
        return data


@admin.register(User)
class UserAdmin(StaffAdmin):
    """A new account has no password: send its owner a link from `manage.py signin_link --email`."""

    form = UserForm
    fieldsets = (
        (None, {"fields": ("email", "name", "is_active")}),
        (
            "Rights",
            {
                "fields": SUPERUSERS_DECIDE,
                "description": "Superusers decide these. Members of a group share its limits; a group gives no rights.",
            },
        ),
        ("Seen", {"fields": ("date_joined", "last_login")}),
    )
    list_display = ("email", "name", "is_active", "is_staff", "is_superuser", "last_login")
    list_filter = ("is_active", "is_staff", "is_superuser", "groups")
    search_fields = ("email", "name")
    ordering = ("email",)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "groups":
            return forms.ModelMultipleChoiceField(
                Group.objects.order_by("name"), required=False, widget=UnfoldAdminCheckboxSelectMultipleWidget
            )
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "is_superuser" and field is not None:
            field.label, field.help_text = "Superuser", "Decides who is on the staff and who is in which group."
        return field

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_staff(request)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Staff may not touch other staff: whoever changes an address can reset the password behind it."""
        return is_superuser(request) or (is_staff(request) and not (obj and (obj.is_staff or obj.is_superuser)))

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return self.has_change_permission(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        seen = ("date_joined", "last_login")
        return seen if is_superuser(request) else (*SUPERUSERS_DECIDE, *seen)

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return super().get_queryset(request).prefetch_related("groups")

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        obj.email = User.objects.normalize_email(obj.email)
        if not change:
            obj.set_unusable_password()
        super().save_model(request, obj, form, change)
        if not change or "email" in form.changed_data:
            vouch_for(obj)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if not change:
            record(AuditEntry.Action.ACCOUNT_CREATED, form.instance.email)
        changed = [name for name in RIGHTS if name in form.changed_data]
        if changed:
            record(AuditEntry.Action.RIGHTS_CHANGED, form.instance.email, **_rights(form.instance, changed))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """How much goes, whoever may change it here. What goes is not listed: titles of runs hold prompts."""
        _, counts, _, protected = super().get_deleted_objects(objs, request)
        return [str(user.email) for user in objs], counts, set(), protected

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        self.delete_queryset(request, [obj])

    def delete_queryset(self, request: HttpRequest, queryset: Iterable[User]) -> None:
        for user in queryset:
            if not self.has_delete_permission(request, user):
                messages.error(request, f"{user.email} is on the staff and stays. Ask a superuser.")
                continue
            try:
                deletion.delete_account(user)
            except deletion.LastAdministrator:
                messages.error(request, f"{user.email} is the last administrator and stays.")


def _rights(user: User, names: list[str]) -> dict[str, Any]:
    values = {name: getattr(user, name) for name in names if name != "groups"}
    return values | ({"groups": sorted(group.name for group in user.groups.all())} if "groups" in names else {})


@admin.register(Group)
class GroupAdmin(StaffAdmin):
    """People who share limits. A group gives no rights."""

    fields = ("name", "members")
    readonly_fields = ("members",)
    list_display = ("name", "size")
    search_fields = ("name",)
    empty = ("There are no groups", "A group shares limits: make one, set its limits, then add people to it.")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return is_superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return is_superuser(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Group]:
        return super().get_queryset(request).annotate(n_members=Count("user"))

    @admin.display(description="Members", ordering="n_members")
    def size(self, group: Group) -> int:
        return group.n_members  # type: ignore[attr-defined]

    @admin.display(description="Members")
    def members(self, group: Group) -> str:
        found = ", ".join(group.user_set.values_list("email", flat=True)) if group.pk else ""
        return found or "Nobody yet. Add people on the pages of their accounts."
