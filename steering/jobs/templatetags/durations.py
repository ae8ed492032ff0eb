from django import template

register = template.Library()


@register.filter
def duration(seconds: float | None) -> str:
    """A length of time as people say it: `3.8 s`, `2 min 5 s`, `1 h 12 min`."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
