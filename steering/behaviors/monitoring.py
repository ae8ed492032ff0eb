"""How often behaviors are seen: counted as runs end, added up by day and key, and kept as samples where allowed.

Who sees what: people see what they themselves caused, by key; the owner of a shared behavior also sees what all others
caused together, without names. Of texts nothing is kept, but of the owner's own runs, if they asked for it: the piece
of the answer in which the behavior fired (never the prompt), for `SAMPLE_DAYS` and at most `MOST_SAMPLES` of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import Error as DatabaseTrouble
from django.db import connection, transaction
from django.db.models import Sum
from django.utils import timezone

from inference.types import Firing
from steering.access.models import ApiKey
from steering.access.principal import Principal
from steering.audit.models import AuditEntry
from steering.audit.trail import record as record_deed
from steering.behaviors import alerts
from steering.behaviors.models import Behavior, BehaviorCount, FiredSample

log = logging.getLogger(__name__)

SAMPLE_DAYS = 30
MOST_SAMPLES = 50  # of one version; the oldest make room
AROUND = 300  # characters kept on each side of what fired


@dataclass(frozen=True)
class Seen:
    """One completion that was watched: which behaviors under which names, what fired, and the pieces of its text."""

    names: dict[UUID, str]
    fired: tuple[Firing, ...] = ()
    pieces: Sequence[str] = field(default_factory=tuple)  # the text of each token that was written
    prompt_tokens: int = 0


def record(who: Principal, source: str, seen: Iterable[Seen], at: datetime | None = None) -> None:
    """Count completions that have ended. Never raises for want of the database: an answer does not wait for figures."""
    try:
        for each in seen:
            _record(who, source, each, at or timezone.now())
    except DatabaseTrouble:
        log.exception("What behaviors saw could not be counted")


def _record(who: Principal, source: str, seen: Seen, at: datetime) -> None:
    day = at.astimezone(UTC).date()
    here = Behavior.objects.filter(pk__in=seen.names).select_related(
        "owner"
    )  # what was deleted meanwhile is not counted
    for behavior in sorted(here, key=lambda b: b.pk):  # in one order, so that no two wait for each other
        fired = [firing for firing in seen.fired if firing.name == seen.names[behavior.pk]]
        with transaction.atomic():
            count(behavior, who, day, fired=len(fired))
            alerts.raise_if_due(behavior, day)
            if fired and behavior.keep_samples and behavior.owner_id == who.user.pk:
                _keep_sample(behavior, source, seen, fired, at)


def count(behavior: Behavior, who: Principal, day: date, *, fired: int) -> None:
    """One more run of a day, in which `fired` tokens fired: one statement, whoever else counts at the same moment."""
    columns = ("behavior", "user", "key", "day", "watched", "fired", "tokens")
    fields: list[Any] = [BehaviorCount._meta.get_field(name) for name in columns]
    values = (behavior.pk, who.user.pk, str(who.key.pk) if who.key else "", day, 1, int(fired > 0), fired)
    table = BehaviorCount._meta.db_table
    names = ", ".join(f.column for f in fields)
    adding = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in ("watched", "fired", "tokens"))
    unique = ", ".join(f.column for f in fields[:4])
    sql = (
        f"INSERT INTO {table} ({names}) VALUES (%s, %s, %s, %s, %s, %s, %s) "  # noqa: S608  names of ours alone
        f"ON CONFLICT ({unique}) DO UPDATE SET {adding}"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [f.get_db_prep_save(v, connection) for f, v in zip(fields, values, strict=True)])


# ---- samples ----


def _keep_sample(behavior: Behavior, source: str, seen: Seen, fired: list[Firing], at: datetime) -> None:
    text, marks = _excerpt(seen, fired)
    if not text:
        return
    FiredSample.objects.create(
        behavior=behavior,
        text=text,
        marks=marks,
        source=source,
        created_at=at,
        expires_at=at + timedelta(days=SAMPLE_DAYS),
    )
    kept = FiredSample.objects.filter(behavior=behavior)
    spare = list(kept.order_by("-created_at").values_list("pk", flat=True)[MOST_SAMPLES:])
    FiredSample.objects.filter(pk__in=spare).delete()
    FiredSample.objects.filter(expires_at__lte=at).delete()


def _excerpt(seen: Seen, fired: list[Firing]) -> tuple[str, list[list[Any]]]:
    """The text around the first firing, and each firing in it as [start, end, score, action] in characters."""
    starts = [0]
    for piece in seen.pieces:
        starts.append(starts[-1] + len(piece))
    text = "".join(seen.pieces)
    places = [(firing.position - seen.prompt_tokens, firing) for firing in fired]
    inside = [(starts[i], starts[i + 1], firing) for i, firing in places if 0 <= i < len(seen.pieces)]
    middle = inside[0][0] if inside else len(text)
    low, high = max(0, middle - AROUND), middle + AROUND
    excerpt = text[low:high].replace("\x00", "")
    marks = [[a - low, min(b, high) - low, round(f.score, 4), f.action] for a, b, f in inside if low <= a < high]
    return excerpt, marks


def samples_of(behavior: Behavior) -> list[FiredSample]:
    return list(FiredSample.objects.current().filter(behavior=behavior))


def samples_switch(behavior: Behavior, keep: bool) -> int:
    """Begin to keep samples; or end it, and delete those there are. Returns how many went."""
    if behavior.keep_samples == keep:
        return 0
    behavior.keep_samples = keep
    behavior.save(update_fields=["keep_samples"])
    gone = 0 if keep else FiredSample.objects.filter(behavior=behavior).delete()[0]
    record_deed(AuditEntry.Action.BEHAVIOR_SAMPLES, f"{behavior} of {behavior.owner}", keep=keep, deleted=gone)
    return gone


# ---- looking ----


@dataclass(frozen=True)
class Line:
    """Counts of a day, a key, or all. `rate` is the share of runs that fired."""

    name: Any
    watched: int
    fired: int
    tokens: int

    @property
    def rate(self) -> float:
        return self.fired / self.watched if self.watched else 0.0


@dataclass(frozen=True)
class Figures:
    """`days` has every day of the span, oldest first; `keys` those that were used, busiest first."""

    total: Line
    days: list[Line]
    keys: list[Line]


def figures(user: Any, behavior: Behavior, span: int) -> Figures:
    """What `user` may see of the last `span` days, today included."""
    today = timezone.now().astimezone(UTC).date()
    first = today - timedelta(days=span - 1)
    rows = BehaviorCount.objects.filter(behavior=behavior, day__gte=first)
    if behavior.owner_id != user.pk:
        rows = rows.filter(user=user)
    by_day = {row["day"]: row for row in _sums(rows, "day")}
    days = [_line(day, by_day.get(day)) for day in (first + timedelta(days=i) for i in range(span))]
    return Figures(_line("all", rows.aggregate(**SUMS)), days, _by_key(user, rows))


def sums_of(behavior: Behavior, span: int) -> tuple[int, int]:
    """Runs watched and fired of the last `span` days, everybody's together; for those who look after the server."""
    first = timezone.now().astimezone(UTC).date() - timedelta(days=span - 1)
    found = BehaviorCount.objects.filter(behavior=behavior, day__gte=first).aggregate(**SUMS)
    return found["watched"] or 0, found["fired"] or 0


SUMS = {name: Sum(name) for name in ("watched", "fired", "tokens")}


def _sums(rows: Any, *by: str) -> Any:
    return rows.order_by().values(*by).annotate(**SUMS)


def _by_key(user: Any, rows: Any) -> list[Line]:
    names = {str(pk): name for pk, name in ApiKey.objects.owned_by(user).values_list("pk", "name")}
    own = [
        _line(names.get(row["key"], "a key that is gone") if row["key"] else "the pages", row)
        for row in _sums(rows.filter(user=user), "key")
    ]
    others = rows.exclude(user=user).aggregate(**SUMS)
    own.sort(key=lambda line: -line.watched)
    return own + ([_line("other people", others)] if others["watched"] else [])


def _line(name: Any, row: dict[str, Any] | None) -> Line:
    row = row or {}
    return Line(name, row.get("watched") or 0, row.get("fired") or 0, row.get("tokens") or 0)
