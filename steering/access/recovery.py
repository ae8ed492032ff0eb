"""Gives back what was reserved by processes that are gone. Whoever comes second changes nothing."""

from __future__ import annotations

import logging

from django.db.models.functions import Now

from steering import shared
from steering.access.admission import refund
from steering.access.models import Carrier, LedgerEntry

logger = logging.getLogger(__name__)


def reservations_recover() -> int:
    """Refund what the last process left open; for the start of a data folder's only server. Returns how many."""
    return _refund(LedgerEntry.objects.open())


def reservations_sweep() -> None:
    """Say that this process is alive, and refund what those held that are not. Any process may, at any time."""
    Carrier.objects.update_or_create(name=shared.PROCESS, defaults={"heartbeat_at": Now()})
    if count := _refund(LedgerEntry.objects.abandoned()):
        logger.warning("%s reservations of processes that are gone were refunded", count)
    Carrier.objects.silent_for_long().delete()


def _refund(entries) -> int:  # type: ignore[no-untyped-def]
    found = list(entries.values_list("pk", flat=True))
    for pk in found:
        refund(pk)
    return len(found)
