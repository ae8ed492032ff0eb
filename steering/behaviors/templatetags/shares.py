"""Shares as people read them."""

from __future__ import annotations

from django import template

from inference.statistics import Interval

register = template.Library()


@register.filter
def percent(share: float) -> str:
    """0.034 as 3.4 %; whole percents from 10 on."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.1f} %"


@register.filter
def spread(share: Interval | None) -> str:
    """The interval of a share: 88 to 97 %."""
    return "" if share is None else f"{100 * share.low:.0f} to {100 * share.high:.0f} %"


@register.filter
def share_of_100(share: float) -> str:
    return f"{100 * max(0.0, min(float(share), 1.0)):.1f}"


@register.filter
def fired_class(title: str) -> str:
    """The class of a bar, by what its title says of it."""
    return "run-quiet" if "did not fire" in title else "run-fired"
