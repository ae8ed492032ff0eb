from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.contrib import admin
from django.http import HttpRequest

from steering.accounts.emails import vouch_for
from steering.accounts.models import User

for _hidden in (EmailAddress, Authenticator, UserSession):  # secrets, and what only their owners decide
    if admin.site.is_registered(_hidden):
        admin.site.unregister(_hidden)


@admin.register(User)
class UserAdmin(admin.ModelAdmin):
    """A new account has no password: send its owner a link from `manage.py signin_link --email`."""

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
