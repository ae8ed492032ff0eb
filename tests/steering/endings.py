"""What tests wait for: work that goes on in the background, until it has ended."""

from __future__ import annotations

from typing import TypeVar

from steering.access.models import LedgerEntry
from steering.experiments.models import Experiment
from steering.jobs.models import Job
from tests.waiting import until

Work = TypeVar("Work", Job, Experiment)


def ended(work: Work) -> Work:
    until(lambda: not type(work).objects.get(pk=work.pk).is_active, what=f"{work} has ended")
    work.refresh_from_db()
    return work


def settled() -> LedgerEntry:
    """The one entry, once it has been charged or given back."""
    until(lambda: LedgerEntry.objects.exists() and not LedgerEntry.objects.open().exists())
    return LedgerEntry.objects.get()
