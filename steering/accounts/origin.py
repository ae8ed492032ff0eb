"""Where a request comes from, and whether that is the person in front of this very machine."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest
from django.http.request import split_domain_port

NOWHERE = "0.0.0.0"  # noqa: S104  what stands for an address that is not known
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")


def client_ip(request: HttpRequest) -> str:
    """The address of the client: as TRUSTED_PROXIES of our proxies report it, otherwise that of the connection."""
    count = settings.TRUSTED_PROXIES
    chain = request.headers.get("X-Forwarded-For", "").split(",") if count else []
    claimed = chain[-count] if len(chain) >= count > 0 else ""
    return _address(claimed) or _address(request.META.get("REMOTE_ADDR", "")) or NOWHERE


def is_local(request: HttpRequest) -> bool:
    """Whether this is the one-process installation, asked by a browser on the same machine and through no proxy.

    Only there may a page show what would otherwise be mailed, and only to the browser that caused the mail.
    """
    if settings.EMAIL_URL or settings.REDIS_URL or settings.PUBLIC_URL or settings.HTTPS or settings.TRUSTED_PROXIES:
        return False
    if any(request.headers.get(name) for name in FORWARDED):
        return False
    address = _address(request.META.get("REMOTE_ADDR", ""))
    host = split_domain_port(request.get_host())[0]
    return bool(address) and ipaddress.ip_address(address).is_loopback and host in settings.LOCAL_HOSTS


def site_url(request: HttpRequest) -> str:
    """What links in mails begin with, without a slash at the end."""
    return settings.PUBLIC_URL or request.build_absolute_uri("/").rstrip("/")


def _address(text: str) -> str:
    """`text` as an IP address, without a port; empty for what is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
