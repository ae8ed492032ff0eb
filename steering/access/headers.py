"""The x-ratelimit headers that OpenAI's clients read. The strictest limit speaks; without one there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable

from steering.access.counters import Moment, Standing
from steering.access.limits import Bound


def rate_limit_headers(bounds: Iterable[Bound], standing: dict[str, Standing], at: Moment) -> dict[str, str]:
    bounds = list(bounds)
    requests = [
        (b.limits.requests_per_minute - standing[b.subject].requests, b.limits.requests_per_minute)
        for b in bounds
        if b.limits.requests_per_minute is not None
    ]
    tokens = [
        (b.limits.tokens_per_day - standing[b.subject].tokens, b.limits.tokens_per_day)
        for b in bounds
        if b.limits.tokens_per_day is not None
    ]
    return _headers("requests", requests, at.to_next_minute) | _headers("tokens", tokens, at.to_next_day)


def _headers(what: str, found: list[tuple[int, int]], seconds: float) -> dict[str, str]:
    if not found:
        return {}
    left, limit = min(found)
    return {
        f"x-ratelimit-limit-{what}": str(limit),
        f"x-ratelimit-remaining-{what}": str(max(0, left)),
        f"x-ratelimit-reset-{what}": span(seconds),
    }


def retry_headers(seconds: float | None) -> dict[str, str]:
    """When to come back, in whole seconds; nothing where that is not known."""
    return {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}


def span(seconds: float) -> str:
    """A time span as OpenAI writes it: 7s, 6m0s, 23h59m59s."""
    hours, rest = divmod(math.ceil(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
