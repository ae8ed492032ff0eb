"""Writing the audit log."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from django.http import HttpRequest

from steering.accounts.models import User
from steering.accounts.origin import client_ip
from steering.audit.models import AuditEntry

NOBODY = "the server"  # a command, or the server itself

acting: ContextVar[HttpRequest | None] = ContextVar("acting", default=None)  # the request that is being answered


def record(action: AuditEntry.Action, target: object = "", *, actor: User | None = None, **details: Any) -> None:
    """Write down a deed, by the person of the request that is being answered, or else by `actor`."""
    request = acting.get()
    who = _person(request) or actor
    AuditEntry.objects.create(
        action=action,
        actor_id=who.pk if who is not None else None,
        actor_name=who.email if who is not None else NOBODY,
        target=str(target)[:300],
        details=details,
        address=client_ip(request) if request is not None else "",
        request_id=str(getattr(request, "id", ""))[:80],
    )


def _person(request: HttpRequest | None) -> User | None:
    user = getattr(request, "user", None)
    return user if isinstance(user, User) else None
