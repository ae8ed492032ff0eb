"""Deeds that show in signals of Django, wherever they were done."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.signals import user_logged_in
from django.db.models.signals import post_delete

from steering.accounts.models import User
from steering.audit.models import AuditEntry
from steering.audit.trail import record


def connect() -> None:
    user_logged_in.connect(staff_came_in, dispatch_uid="audit_staff_came_in")
    post_delete.connect(account_went, sender=User, dispatch_uid="audit_account_went")


def staff_came_in(sender: Any, user: User, **kwargs: Any) -> None:
    if user.is_staff:
        record(AuditEntry.Action.STAFF_SIGNED_IN, user.email, actor=user)


def account_went(sender: Any, instance: User, **kwargs: Any) -> None:
    record(AuditEntry.Action.ACCOUNT_DELETED, instance.email)
