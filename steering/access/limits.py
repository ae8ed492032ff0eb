"""Which limits hold for whom: the person's, the key's, and those of each group the person is in. All of them count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import connection

from steering.access.models import Limit, LimitFields
from steering.access.principal import Principal
from steering.accounts.models import User


@dataclass(frozen=True)
class Limits:
    """None means that there is no limit."""

    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrent_runs: int | None = None


@dataclass(frozen=True)
class Bound:
    """One counter that work is charged to. `whose` completes the sentence "the limit of …"."""

    subject: str
    whose: str
    limits: Limits


def bounds_of(who: Principal) -> tuple[Bound, ...]:
    """Every counter that work of `who` is charged to, always in the same order, so that two never lock crosswise."""
    own, bounds = default_limits(), []
    for group, name, *limits in _known(who.user.pk):
        if group is None:
            own = Limits(*limits)
        else:
            bounds.append(Bound(f"group:{group}", f"the group “{name}”", Limits(*limits)))
    bounds.append(Bound(f"user:{who.user.pk}", "your account", own))
    if who.key is not None:
        bounds.append(Bound(f"key:{who.key.pk}", f"the key “{who.key.name}”", limits_in(who.key)))
    return tuple(sorted(bounds, key=lambda bound: bound.subject))


def _known(user: int) -> list[tuple[Any, ...]]:
    """(group, its name, the three limits), where there are any, of each group of a person; None for their own.

    Written out, since every request passes here: to build it from expressions took seven times as long.
    """
    limit, group, member = Limit._meta.db_table, Group._meta.db_table, User.groups.through._meta.db_table
    columns = "l.requests_per_minute, l.tokens_per_day, l.concurrent_runs"
    own = f"SELECT NULL, NULL, {columns} FROM {limit} l WHERE l.user_id = %s"  # noqa: S608  names of ours alone
    joined = f"{member} m JOIN {group} g ON g.id = m.group_id LEFT JOIN {limit} l ON l.group_id = g.id"
    groups = f"SELECT g.id, g.name, {columns} FROM {joined} WHERE m.user_id = %s"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(f"{groups} UNION ALL {own}", [user, user])
        return list(cursor.fetchall())


def limits_in(row: LimitFields) -> Limits:
    return Limits(row.requests_per_minute, row.tokens_per_day, row.concurrent_runs)


def default_limits() -> Limits:
    """Those of a person for whom the administrator has set none."""
    return Limits(**settings.DEFAULT_LIMITS)
