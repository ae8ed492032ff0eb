"""Which limits hold for whom: the person's, the key's, and those of each group the person is in. All of them count."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.db.models import Q

from steering.access.models import Limit, LimitFields
from steering.access.principal import Principal


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
    groups = dict(who.user.groups.values_list("pk", "name"))
    rows = Limit.objects.filter(Q(user=who.user.pk) | Q(group__in=groups))
    own = {("group", row.group_id) if row.group_id else ("user", row.user_id): limits_in(row) for row in rows}
    bounds = [Bound(f"user:{who.user.pk}", "your account", own.get(("user", who.user.pk)) or default_limits())]
    if who.key is not None:
        bounds.append(Bound(f"key:{who.key.pk}", f"the key “{who.key.name}”", limits_in(who.key)))
    for pk, name in groups.items():
        bounds.append(Bound(f"group:{pk}", f"the group “{name}”", own.get(("group", pk)) or Limits()))
    return tuple(sorted(bounds, key=lambda bound: bound.subject))


def limits_in(row: LimitFields) -> Limits:
    return Limits(row.requests_per_minute, row.tokens_per_day, row.concurrent_runs)


def default_limits() -> Limits:
    """Those of a person for whom the administrator has set none."""
    return Limits(**settings.DEFAULT_LIMITS)
