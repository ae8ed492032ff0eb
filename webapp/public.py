"""Under which address people find this installation, and through which server it sends mail."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

CONSOLE = {"EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend"}


def origin(url: str) -> str:
    """`url` without a slash at its end. Raises ImproperlyConfigured for what is no origin."""
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or parts.query):
        raise ImproperlyConfigured(
            f"PUBLIC_URL={url!r} is not understood. Write scheme and host alone, such as https://steer.example.org"
        )
    return url.rstrip("/")


def host_of(url: str) -> list[str]:
    """The host name of an origin, in a list that is empty where there is none."""
    host = urlsplit(url).hostname
    return [f"[{host}]" if ":" in host else host] if host else []


def mail(url: str) -> dict[str, Any]:
    """Django's settings for EMAIL_URL; empty writes mail to the console. Raises ImproperlyConfigured with a cure."""
    if not url:
        return CONSOLE
    if urlsplit(url).scheme not in environ.Env.EMAIL_SCHEMES:
        raise ImproperlyConfigured(
            "EMAIL_URL is not understood. Use smtp+tls://user:password@host:587, smtp+ssl://user:password@host:465 "
            "or smtp://host:25, with % signs for special letters; or leave it empty for mail on the console."
        )
    return dict(environ.Env.email_url_config(url))
