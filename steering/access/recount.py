"""Counters compared with the ledger they are sums of, and set right where they differ."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from steering.access.counters import DAY, Moment, Standing, moment_of, standing_of
from steering.access.models import Counter, LedgerEntry


@dataclass(frozen=True)
class Difference:
    subject: str
    counted: Standing
    true: Standing


def recount(*, repair: bool) -> list[Difference]:
    """What differs now; with `repair` it does not any more. Work that comes meanwhile waits, and is counted once."""
    with transaction.atomic():
        counters = _locked()
        at = moment_of(timezone.now())
        true = _from_ledger(at)
        nothing = Standing(0, 0, 0)
        found = [
            Difference(counter.subject, standing_of(counter, at), true.get(counter.subject, nothing))
            for counter in counters
        ]
        found = [difference for difference in found if difference.counted != difference.true]
        if repair:
            for difference in found:
                _set(difference.subject, at, difference.true)
    return found


def _locked() -> list[Counter]:
    """Every counter, made where the ledger knows a subject that has none. Locked in the order in which work locks."""
    known = {subject for entry in _relevant(moment_of(timezone.now())) for subject in entry.subjects}
    Counter.objects.bulk_create([Counter(subject=subject) for subject in sorted(known)], ignore_conflicts=True)
    subjects = sorted(Counter.objects.values_list("pk", flat=True))
    return [Counter.objects.select_for_update().get(pk=subject) for subject in subjects]


def _relevant(at: Moment) -> list[LedgerEntry]:
    midnight = datetime.fromtimestamp(at.day * DAY, UTC)
    rows = LedgerEntry.objects.filter(Q(created_at__gte=midnight) | Q(state=LedgerEntry.State.OPEN))
    fields = ("subjects", "state", "reserved_tokens", "prompt_tokens", "completion_tokens", "created_at")
    return list(rows.only(*fields))


def _from_ledger(at: Moment) -> dict[str, Standing]:
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for entry in _relevant(at):
        when, is_open = moment_of(entry.created_at), entry.state == LedgerEntry.State.OPEN
        for subject in entry.subjects:
            counts = sums[subject]
            counts[0] += when.minute == at.minute
            counts[1] += (entry.reserved_tokens if is_open else entry.used_tokens) if when.day == at.day else 0
            counts[2] += is_open
    return {subject: Standing(*counts) for subject, counts in sums.items()}


def _set(subject: str, at: Moment, true: Standing) -> None:
    Counter.objects.filter(pk=subject).update(
        minute=at.minute, requests=true.requests, day=at.day, tokens=true.tokens, running=true.running
    )
