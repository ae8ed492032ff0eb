"""Work is reserved before it begins, settled to what it used, and refunded when it failed.

Synchronous; where there is a loop, call it in a thread. A reservation and its counters change in one
transaction, the counters always in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from steering import shared
from steering.access.counters import Moment, Standing, charge, moment_of, release, standings
from steering.access.denied import Denied
from steering.access.headers import rate_limit_headers, retry_headers, span
from steering.access.limits import Bound, Limits, bounds_of
from steering.access.models import LedgerEntry, LedgerQuerySet
from steering.access.principal import Principal
from steering.inserting import insert

PLACE_SECONDS = 5.0  # when to look again for a place that nobody knows the end of
TRIES = 5  # a place may become free between the refusal and the look for its reason


@dataclass(frozen=True)
class Reservation:
    """`headers` are x-ratelimit-* as of now."""

    id: UUID
    headers: dict[str, str]


def reserve(
    who: Principal,
    *,
    work: str,
    kind: str,
    model: str,
    tokens: int,
    source: str,
    carrier: str | None = None,
    parts: str = "",
) -> Reservation:
    """Take a place and at most so many tokens, before the work begins.

    `work` is what `gateway.inference().cancel` stops, or "run:<uuid>", "job:<uuid>". `tokens` bounds prompt and answer.
    `carrier` is who will settle it, this process unless said; it is given back when that is gone. "" is for work that
    others look after. Raises Denied(429): rate_limited, quota_spent or too_many_at_once.
    """
    now = timezone.now()
    at, bounds = moment_of(now), bounds_of(who)
    limited = any(bound.limits != Limits() for bound in bounds)  # else nothing can be refused, and no header says so
    if limited:
        _glance(bounds, at, tokens)
    entry = LedgerEntry(
        user=who.user,
        key=who.key,
        subjects=[bound.subject for bound in bounds],
        work=work,
        kind=kind,
        model=model[:200],
        source=source,
        reserved_tokens=tokens,
        parts=parts,
        carrier=shared.PROCESS if carrier is None else carrier,
        created_at=now,
    )
    with transaction.atomic():
        for bound in bounds:
            _charge(bound, bounds, at, tokens)
        insert(entry)
        headers = rate_limit_headers(bounds, standings(bounds, at), at) if limited else {}
    return Reservation(entry.pk, headers)


def refuse_if_spent(who: Principal) -> None:
    """For small things that are not counted themselves. Raises Denied(429, "quota_spent") when the day is used up."""
    at = moment_of(timezone.now())
    bounds = tuple(
        replace(bound, limits=Limits(tokens_per_day=bound.limits.tokens_per_day)) for bound in bounds_of(who)
    )
    _glance(bounds, at, 1)


def refuse_if_plain(who: Principal, tokens: int) -> None:
    """For what comes before a reservation of at least so many tokens. Raises Denied(429) where that is sure to fail."""
    _glance(bounds_of(who), moment_of(timezone.now()), tokens)


def settle(id: UUID, *, prompt_tokens: int, completion_tokens: int) -> None:
    """End the work with what it used, which may be more than was reserved. Nothing happens when it has ended."""
    _end(id, LedgerEntry.State.SETTLED, prompt_tokens, completion_tokens)


def refund(id: UUID) -> None:
    """End the work as if it had used no token; the request itself stays counted. Nothing happens when it has ended."""
    _end(id, LedgerEntry.State.REFUNDED, 0, 0)


def headers_of(who: Principal) -> dict[str, str]:
    """x-ratelimit-* as of now, for an answer that reserved nothing."""
    at, bounds = moment_of(timezone.now()), bounds_of(who)
    return rate_limit_headers(bounds, standings(bounds, at), at)


def running() -> LedgerQuerySet:
    """Open reservations, newest first."""
    return LedgerEntry.objects.open()


def open_of(work: str) -> LedgerEntry | None:
    """The open reservation of a piece of work."""
    return next(iter(LedgerEntry.objects.raw(_OPEN, [work, LedgerEntry.State.OPEN])), None)


# Written out, as the counters are: every request ends here.
_LEDGER = LedgerEntry._meta.db_table
_OPEN = f"SELECT * FROM {_LEDGER} WHERE work = %s AND state = %s ORDER BY created_at DESC LIMIT 1"  # noqa: S608
_ENDED = (
    f"UPDATE {_LEDGER} SET state = %s, prompt_tokens = %s, completion_tokens = %s, ended_at = %s "  # noqa: S608
    "WHERE id = %s AND state = %s RETURNING *"
)


@transaction.atomic
def _end(id: UUID, state: LedgerEntry.State, prompt_tokens: int, completion_tokens: int) -> None:
    key = LedgerEntry._meta.pk.get_db_prep_value(id, connection)
    new = (state, prompt_tokens, completion_tokens, timezone.now())
    for entry in LedgerEntry.objects.raw(_ENDED, [*new, key, LedgerEntry.State.OPEN]):
        for subject in entry.subjects:
            release(subject, moment_of(entry.created_at).day, entry.reserved_tokens, entry.used_tokens)


# ---- refusing ----


def _glance(bounds: tuple[Bound, ...], at: Moment, tokens: int) -> None:
    """Refuse what is plainly too much without waiting for a lock: a storm of refusals must not slow the others."""
    standing = standings(bounds, at)
    for bound in bounds:
        if denied := _refusal(bound, standing[bound.subject], at, tokens):
            denied.headers |= rate_limit_headers(bounds, standing, at)
            raise denied


def _charge(bound: Bound, bounds: Iterable[Bound], at: Moment, tokens: int) -> None:
    for _ in range(TRIES):
        if charge(bound, at, tokens):
            return
        _glance(tuple(bounds), at, tokens)
    raise _denied("rate_limited", f"Too many requests at once for {bound.whose}. Try again in a second.", 1.0)


def _refusal(bound: Bound, now: Standing, at: Moment, tokens: int) -> Denied | None:
    limits, whose = bound.limits, bound.whose
    per_minute, per_day, at_once = limits.requests_per_minute, limits.tokens_per_day, limits.concurrent_runs
    if per_day is not None and tokens > per_day:
        return _denied(
            "quota_spent",
            f"This may need {tokens} tokens, and {whose} has {per_day} a day. Ask for fewer tokens.",
        )
    if per_day is not None and now.tokens + tokens > per_day:
        left = max(0, per_day - now.tokens)
        return _denied(
            "quota_spent",
            f"This may need {tokens} tokens, and {whose} has {left} of {per_day} left today. Ask for fewer, or come "
            f"back in {span(at.to_next_day)}, at midnight UTC.",
            at.to_next_day,
        )
    if per_minute is not None and now.requests >= per_minute:
        return _denied(
            "rate_limited",
            f"The limit of {whose} is {_things(per_minute, 'request')} a minute. Try again in "
            f"{span(at.to_next_minute)}.",
            at.to_next_minute if per_minute else None,
        )
    if at_once is not None and now.running >= at_once:
        return _denied(
            "too_many_at_once",
            f"The limit of {whose} is {_things(at_once, 'run')} at once. Stop one, or wait until one ends.",
            PLACE_SECONDS if at_once else None,
        )
    return None


def _things(count: int, thing: str) -> str:
    return f"1 {thing}" if count == 1 else f"{count} {thing}s"


def _denied(code: str, message: str, retry_after: float | None = None) -> Denied:
    return Denied(429, code, message, retry_after, retry_headers(retry_after))
