"""Limits of a person for whom none are set, from the environment."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured


def optional_count(name: str, text: str) -> int | None:
    """None where nothing is set, which means no limit. Raises ImproperlyConfigured for what is not a count."""
    if not text.strip():
        return None
    if not text.strip().isdecimal():
        raise ImproperlyConfigured(f"{name}={text!r} is not a count. Use a whole number, or leave it empty: no limit.")
    return int(text)
