"""The counters: each is checked and raised by one conditional UPDATE, so of many at once exactly the limit gets in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import BigIntegerField, Case, F, Q, Value, When
from django.db.models.functions import Greatest

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
    new_minute, new_day = Q(minute__lt=at.minute), Q(day__lt=at.day)
    limits, fits = bound.limits, Q(pk=bound.subject)
    if limits.requests_per_minute is not None:
        fits &= Q(requests__lt=limits.requests_per_minute) | (new_minute & _true_if(limits.requests_per_minute > 0))
    if limits.tokens_per_day is not None:
        room = limits.tokens_per_day - tokens
        fits &= Q(tokens__lte=room) | (new_day & _true_if(room >= 0))
    if limits.concurrent_runs is not None:
        fits &= Q(running__lt=limits.concurrent_runs)
    changed = Counter.objects.filter(fits).update(
        minute=Greatest(F("minute"), Value(at.minute)),
        requests=_number(new_minute, 1, F("requests") + 1),
        day=Greatest(F("day"), Value(at.day)),
        tokens=_number(new_day, tokens, F("tokens") + tokens),
        running=F("running") + 1,
    )
    return changed == 1


def release(subject: str, day: int, reserved: int, used: int) -> None:
    """End one piece of work: free its place, and set its tokens to what it used if their day is still counted."""
    same_day = Q(day=day)
    Counter.objects.filter(pk=subject).update(
        running=Greatest(F("running") - 1, Value(0)),
        tokens=Case(
            When(same_day, then=Greatest(F("tokens") + (used - reserved), Value(0))),
            default=F("tokens"),
            output_field=BigIntegerField(),
        ),
    )


def _number(condition: Q, then: int, otherwise: object) -> Case:
    return Case(When(condition, then=Value(then)), default=otherwise, output_field=BigIntegerField())


def _true_if(condition: bool) -> Q:
    return Q() if condition else Q(pk__in=[])
