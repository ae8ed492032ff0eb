"""What django-axes asks us: whose password is being guessed, and what a locked person reads.

Ten wrong passwords for one account from one address, and that pair waits fifteen minutes. Others, the owner among them,
still get in.
"""

from __future__ import annotations

from typing import Any

from axes.utils import reset
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from steering.accounts.models import User

SENTENCE = "There were too many wrong passwords for this e-mail from here. Wait 15 minutes, or use a sign-in link."


def email_of(request: HttpRequest, credentials: dict[str, Any] | None = None) -> str:
    """The account a password is tried for, whether or not there is one."""
    given = credentials or {}
    return User.objects.normalize_email(given.get("email") or given.get("username") or request.POST.get("login"))[:254]


def locked(
    request: HttpRequest, original_response: HttpResponse | None = None, credentials: dict[str, Any] | None = None
) -> HttpResponse:
    """The answer to a locked pair, whatever page asked for the password."""
    seconds = int(settings.AXES_COOLOFF_TIME.total_seconds())
    if "application/json" in request.headers.get("Accept", ""):
        error = {"code": "locked", "message": SENTENCE, "request_id": getattr(request, "id", "-")}
        response: HttpResponse = JsonResponse({"error": error}, status=429)
    else:
        response = render(request, "accounts/locked.html", {"request_id": getattr(request, "id", "-")}, status=429)
    response["Retry-After"] = str(seconds)
    response["Cache-Control"] = "no-store"
    return response


def unlock(email: str) -> None:
    """Forget the wrong passwords for an account: its owner has just proved to read its mail."""
    reset(username=User.objects.normalize_email(email))
