from django import template

register = template.Library()


@register.filter
def signed(value: float) -> str:
    """A difference with its sign, always: `+3.14`, `−0.20` (a real minus), `0.00`."""
    text = f"{value:+.2f}".replace("-", "−")
    return "0.00" if text[1:] == "0.00" else text


@register.filter
def score(value: float) -> str:
    """A score, with a real minus: `3.14`, `−0.20`."""
    return f"{value:.2f}".replace("-", "−")
