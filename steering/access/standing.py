"""How a person stands with each of their limits now, for the page."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils import timezone

from steering.access.counters import moment_of, standings
from steering.access.limits import bounds_of
from steering.access.principal import Principal


@dataclass(frozen=True)
class Use:
    """`limit` None: there is none. `whose` is whose limit it is, if another than the person's own is the strictest."""

    used: int
    limit: int | None
    whose: str

    @property
    def left(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.used)


def uses_of(who: Principal) -> dict[str, Use]:
    """By measure, the person's own use and the limit that will refuse first, be it theirs or a group's."""
    at, bounds = moment_of(timezone.now()), bounds_of(who)
    standing = standings(bounds, at)
    own = f"user:{who.user.pk}"
    found = {}
    for measure, name in (
        ("requests", "requests_per_minute"),
        ("tokens", "tokens_per_day"),
        ("running", "concurrent_runs"),
    ):
        limited = [
            Use(getattr(standing[b.subject], measure), limit, "" if b.subject == own else b.whose)
            for b in bounds
            if (limit := getattr(b.limits, name)) is not None
        ]
        free = Use(getattr(standing[own], measure), None, "")
        found[measure] = min(limited, key=lambda use: use.left or 0, default=free)
    return found
