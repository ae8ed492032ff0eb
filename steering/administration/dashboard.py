"""The first page of the administration: what is asked, what it costs, what waits, what fails."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

from django.db.models import Count, Q, Sum
from django.db.models.functions import TruncDate
from django.http import HttpRequest
from django.utils import timezone

from inference.types import ModelInfo
from steering import gateway
from steering.access import usage
from steering.access.chart import Chart, stacked
from steering.access.models import LedgerEntry

DAYS = 14
SERIES = {
    LedgerEntry.State.SETTLED: "ended well",
    LedgerEntry.State.REFUNDED: "failed or stopped before a word",
    LedgerEntry.State.OPEN: "running",
}


@dataclass(frozen=True)
class Figure:
    """A number of the last 24 hours, or of now."""

    title: str
    value: int
    says: str
    view: str = ""  # where there is more about it


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """unfold's DASHBOARD_CALLBACK."""
    models = gateway.models()
    return context | {
        "figures": _figures(models),
        "charts": (
            ("Requests by day", _requests(), "requests"),
            ("Tokens by day", _tokens(), "tokens"),
        ),
        "served": models,
        "days": DAYS,
    }


def _figures(models: Iterable[ModelInfo]) -> list[Figure]:
    recent = LedgerEntry.objects.filter(created_at__gte=timezone.now() - timedelta(hours=24))
    sums = recent.aggregate(
        requests=Count("pk"),
        people=Count("user", distinct=True),
        failed=Count("pk", filter=Q(state=LedgerEntry.State.REFUNDED)),
        prompt=Sum("prompt_tokens", default=0),
        written=Sum("completion_tokens", default=0),
    )
    waiting, rows = sum(model.waiting for model in models), sum(model.rows for model in models)
    return [
        Figure("Requests", sums["requests"], f"in 24 hours, by {_people(sums['people'])}"),
        Figure("Tokens", sums["prompt"] + sums["written"], f"{sums['prompt']:,} read, {sums['written']:,} written"),
        Figure(
            "Running now",
            LedgerEntry.objects.open().count(),
            f"{rows} row{'' if rows == 1 else 's'} in the batch",
            "admin:administration_runningwork_changelist",
        ),
        Figure("In the queue", waiting, "waiting for a place in the batch"),
        Figure("Failed", sums["failed"], "in 24 hours; stopped before a word counts too"),
    ]


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"


def _requests() -> Chart:
    since = timezone.now() - timedelta(days=DAYS)
    rows = (
        LedgerEntry.objects.filter(created_at__gte=since)
        .annotate(day=TruncDate("created_at", tzinfo=UTC))
        .values_list("day", "state")
        .annotate(count=Count("pk"))
        .order_by("day")
    )
    points = [(day, SERIES[LedgerEntry.State(state)], count) for day, state, count in rows]
    return stacked(points, usage.last_days(DAYS), unit="requests")


def _tokens() -> Chart:
    found = usage.lines(LedgerEntry.objects.all(), DAYS)
    return stacked([(line.day, line.short_model, line.tokens) for line in found], usage.last_days(DAYS))
