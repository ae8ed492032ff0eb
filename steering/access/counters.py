"""The counters: each is checked and raised by one conditional UPDATE, so of many at once exactly the limit gets in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from steering.access.limits import Bound
from steering.access.models import Counter

MINUTE = 60
DAY = 86400


@dataclass(frozen=True)
class Moment:
    """A time as counters know it. `minute` and `day` are whole ones since 1970, in UTC."""

    minute: int
    day: int
    to_next_minute: float
    to_next_day: float


def moment_of(time: datetime) -> Moment:
    seconds = time.timestamp()
    return Moment(int(seconds // MINUTE), int(seconds // DAY), MINUTE - seconds % MINUTE, DAY - seconds % DAY)


@dataclass(frozen=True)
class Standing:
    """What a subject has used at a moment."""

    requests: int
    tokens: int
    running: int


def standing_of(counter: Counter | None, at: Moment) -> Standing:
    if counter is None:
        return Standing(0, 0, 0)
    requests = counter.requests if counter.minute >= at.minute else 0
    return Standing(requests, counter.tokens if counter.day >= at.day else 0, counter.running)


def standings(bounds: Iterable[Bound], at: Moment) -> dict[str, Standing]:
    subjects = [bound.subject for bound in bounds]
    known = Counter.objects.in_bulk(subjects)
    return {subject: standing_of(known.get(subject), at) for subject in subjects}


def charge(bound: Bound, at: Moment, tokens: int) -> bool:
    """Count one more request of so many tokens, if the limits allow it. In a transaction."""
    if _raise(bound, at, tokens):
        return True
    if Counter.objects.filter(pk=bound.subject).exists():
        return False
    Counter.objects.bulk_create([Counter(subject=bound.subject)], ignore_conflicts=True)
    return _raise(bound, at, tokens)


def _raise(bound: Bound, at: Moment, tokens: int) -> bool:
    limits = bound.limits
    fits: list[str] = ["subject = %s"]
    values: list[str | int] = [bound.subject]
    if (most := limits.requests_per_minute) is not None:
        fits.append("(requests < %s OR (minute < %s AND 0 < %s))")
        values += [most, at.minute, most]
    if limits.tokens_per_day is not None:
        room = limits.tokens_per_day - tokens
        fits.append("(tokens <= %s OR (day < %s AND 0 <= %s))")
        values += [room, at.day, room]
    if (most := limits.concurrent_runs) is not None:
        fits.append("running < %s")
        values.append(most)
    return _update(_RAISED, (at.minute, at.minute, at.minute, at.day, at.day, at.day, tokens, tokens), fits, values)


def release(subject: str, day: int, reserved: int, used: int) -> None:
    """End one piece of work: free its place, and set its tokens to what it used if their day is still counted."""
    change = used - reserved
    _update(_RELEASED, (day, -change, change), ["subject = %s"], [subject])


# Written out: every request passes here twice, and to build these from expressions took ten times as long.
_RAISED = """
    minute = CASE WHEN minute < %s THEN %s ELSE minute END,
    requests = CASE WHEN minute < %s THEN 1 ELSE requests + 1 END,
    day = CASE WHEN day < %s THEN %s ELSE day END,
    tokens = CASE WHEN day < %s THEN %s ELSE tokens + %s END,
    running = running + 1"""
_RELEASED = """
    running = CASE WHEN running > 0 THEN running - 1 ELSE 0 END,
    tokens = CASE WHEN day <> %s THEN tokens WHEN tokens < %s THEN 0 ELSE tokens + %s END"""


def _update(assigned: str, new: Sequence[int], fits: Sequence[str], values: Sequence[str | int]) -> bool:
    with connection.cursor() as cursor:
        where = " AND ".join(fits)
        cursor.execute(f"UPDATE {Counter._meta.db_table} SET {assigned} WHERE {where}", [*new, *values])  # noqa: S608  names of ours alone
        return bool(cursor.rowcount == 1)
