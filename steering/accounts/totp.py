"""The second step of signing in: its secrets at rest, and staff who must have it before they administer anything."""

from __future__ import annotations

import base64
import hashlib
import logging
from typing import Any, ClassVar

from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.deprecation import MiddlewareMixin

from steering.accounts.models import User

logger = logging.getLogger(__name__)

WHY = "On this installation the administration needs two-step sign-in. Set it up here, then go on."


class SecondStepNeeded(Exception):
    """Someone on the staff wants to administer and has no second step. StaffTotp sends them to set it up."""


class TotpAdapter(DefaultMFAAdapter):
    error_messages: ClassVar[dict[str, Any]] = DefaultMFAAdapter.error_messages | {
        "incorrect_code": "This code does not fit. Type the next one. If none fits, compare the clocks.",
        "cannot_generate_recovery_codes": "Set up two-step sign-in first; recovery codes come with it.",
    }

    def encrypt(self, text: str) -> str:
        """Secrets lie in the database so that a copy of it alone, without the secret key, opens nothing."""
        return _cipher().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        try:
            return _cipher().decrypt(encrypted_text.encode()).decode()
        except InvalidToken:
            logger.error("A second step was stored under another SECRET_KEY; `manage.py remove_totp` takes it away")
            return base64.b32encode(Fernet.generate_key()).decode()  # fits no code

    def get_totp_label(self, user: Any) -> str:
        return str(user.email)


def has(user: User | AnonymousUser) -> bool:
    return user.is_authenticated and Authenticator.objects.filter(user=user.pk, type=Authenticator.Type.TOTP).exists()


def missing(user: User | AnonymousUser) -> bool:
    """Whether `user` is staff who may not administer before setting up a second step."""
    return settings.STAFF_TOTP == "required" and bool(getattr(user, "is_staff", False)) and not has(user)


def require_staff(request: HttpRequest) -> None:
    """For pages of the administration outside /admin/. Raises PermissionDenied or SecondStepNeeded."""
    if not getattr(request.user, "is_staff", False):
        raise PermissionDenied("This page is for the people who run this installation.")
    if missing(request.user):
        raise SecondStepNeeded


class StaffTotp(MiddlewareMixin):
    """Nobody reaches /admin/ without the second step, where STAFF_TOTP=required."""

    def process_view(self, request: HttpRequest, *view: Any) -> HttpResponse | None:
        match = request.resolver_match
        if match and "admin" in match.namespaces and missing(request.user):
            return _set_it_up(request)
        return None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return _set_it_up(request) if isinstance(exception, SecondStepNeeded) else None


def _set_it_up(request: HttpRequest) -> HttpResponse:
    messages.warning(request, WHY)
    return HttpResponseRedirect(reverse("mfa_activate_totp"))


def _cipher() -> Fernet:
    key = hashlib.sha256(b"steerboard.totp" + settings.SECRET_KEY.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(key))
