from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest

from steering.accounts import deletion
from steering.accounts.emails import vouch_for
from steering.accounts.models import User

for _hidden in (EmailAddress, Authenticator, UserSession):  # secrets, and what only their owners decide
    if admin.site.is_registered(_hidden):
        admin.site.unregister(_hidden)


class UserForm(forms.ModelForm):
    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        stays = data.get("is_superuser") and data.get("is_active")
        if self.instance.pk and self.instance.is_active and not stays and deletion.is_last_administrator(self.instance):
            raise forms.ValidationError("This is the last administrator. Make someone else a superuser first.")
        return data


@admin.register(User)
class UserAdmin(admin.ModelAdmin):
    """A new account has no password: send its owner a link from `manage.py signin_link --email`."""

    form = UserForm
    fields = ["email", "name", "is_active", "is_staff", "is_superuser"]
    list_display = ["email", "name", "is_active", "is_staff", "last_login"]
    search_fields = ["email", "name"]

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        obj.email = User.objects.normalize_email(obj.email)
        if not change:
            obj.set_unusable_password()
        super().save_model(request, obj, form, change)
        if not change or "email" in form.changed_data:
            vouch_for(obj)

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        self.delete_queryset(request, [obj])

    def delete_queryset(self, request: HttpRequest, queryset: Iterable[User]) -> None:
        for user in queryset:
            try:
                deletion.delete_account(user)
            except deletion.LastAdministrator:
                messages.error(request, f"{user.email} is the last administrator and stays.")
