"""What was used, added up from the ledger: by day, by model and by key."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.db.models import Count, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from steering.access.models import LedgerQuerySet

NO_KEY = "Pages"  # work of a session has no key


@dataclass(frozen=True)
class Line:
    """What one key (None: a session) used of one model on one day, in UTC. Refused requests are in no line."""

    day: date
    model: str
    key: str | None
    key_name: str
    requests: int
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def short_model(self) -> str:
        return self.model.rstrip("/").rpartition("/")[2] or "unknown"


@dataclass(frozen=True)
class Total:
    """The sum of lines that share a name."""

    name: Any
    requests: int
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def lines(entries: LedgerQuerySet, days: int) -> list[Line]:
    """Of the last `days` days, today among them, oldest first."""
    rows = (
        entries.filter(created_at__gte=_midnight(today() - timedelta(days=days - 1)))
        .annotate(day=TruncDate("created_at", tzinfo=UTC))
        .values("day", "model", "key", "key__name")
        .annotate(requests=Count("pk"), prompt=Sum("prompt_tokens"), completion=Sum("completion_tokens"))
        .order_by("day", "model", "key__name")
    )
    return [
        Line(
            row["day"],
            row["model"],
            str(row["key"]) if row["key"] else None,
            row["key__name"] or NO_KEY,
            row["requests"],
            row["prompt"],
            row["completion"],
        )
        for row in rows
    ]


def totals(found: Iterable[Line], name: Callable[[Line], Any]) -> list[Total]:
    """Lines added up by what `name` says of them, in the order in which names come up."""
    sums: dict[Any, list[int]] = {}
    for line in found:
        into = sums.setdefault(name(line), [0, 0, 0])
        for i, count in enumerate((line.requests, line.prompt_tokens, line.completion_tokens)):
            into[i] += count
    return [Total(key, *counts) for key, counts in sums.items()]


def today() -> date:
    return timezone.now().astimezone(UTC).date()


def last_days(days: int) -> list[date]:
    return [today() - timedelta(days=ago) for ago in reversed(range(days))]


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
