"""A rule on a rate, and what happens when a day breaks it: a notice on the page, in the admin, and one mail."""

from __future__ import annotations

import asyncio
import logging
from datetime import date
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Sum
from django.utils import timezone

from steering import gateway
from steering.accounts.mailing import MailNotSent, send
from steering.behaviors.models import Alert, AlertRule, Behavior, BehaviorCount

log = logging.getLogger(__name__)


def raise_if_due(behavior: Behavior, day: date) -> Alert | None:
    """The alert of a day, made by whoever is first to find that the rule is broken; None for all others."""
    rule = AlertRule.objects.filter(behavior=behavior).first()
    if rule is None:
        return None
    sums = BehaviorCount.objects.filter(behavior=behavior, day=day).aggregate(w=Sum("watched"), f=Sum("fired"))
    watched, fired = sums["w"] or 0, sums["f"] or 0
    if watched < rule.runs or fired * 100 <= rule.percent * watched:
        return None
    found = {"percent": rule.percent, "watched": watched, "fired": fired}
    alert, made = Alert.objects.get_or_create(behavior=behavior, day=day, defaults=found)
    if not made:
        return None
    if rule.email and behavior.owner is not None:
        transaction.on_commit(lambda: gateway.spawn(asyncio.to_thread(_mail_alone, alert)))
    return alert


def _mail_alone(alert: Alert) -> None:
    """In a thread of its own: nobody waits for a mail."""
    try:
        mail(alert)
    finally:
        connection.close()


def mail(alert: Alert) -> bool:
    """Send it, once: whoever marks the alert as mailed does. False where that was another, or no mail could be sent."""
    if not Alert.objects.filter(pk=alert.pk, mailed_at=None).update(mailed_at=timezone.now()):
        return False
    behavior = alert.behavior
    context: dict[str, Any] = {
        "alert": alert,
        "behavior": behavior,
        "rate": 100 * alert.fired / alert.watched,
        "site_url": settings.PUBLIC_URL,
    }
    try:
        send("behavior_alert", behavior.owner.email, context)  # type: ignore[union-attr]
    except MailNotSent:
        Alert.objects.filter(pk=alert.pk).update(mailed_at=None)
        return False
    return True


def unseen(user: Any) -> list[Alert]:
    """The alerts of a person's own behaviors that they have not put away, newest first."""
    own = Alert.objects.filter(behavior__owner=user.pk, seen_at=None)
    return list(own.select_related("behavior")[:20])


def put_away(behavior: Behavior) -> None:
    Alert.objects.filter(behavior=behavior, seen_at=None).update(seen_at=timezone.now())
