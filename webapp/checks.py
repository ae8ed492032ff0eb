"""Combinations of settings that cannot work, each refused with its cure before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

CHOICES = {"SIGNUP": ("open", "invitation", "closed"), "STAFF_TOTP": ("optional", "required")}


@register()
def choices_are_known(**kwargs: Any) -> list[CheckMessage]:
    return [
        Error(
            f"{name}={getattr(settings, name)!r} is not understood.",
            hint=f"Use one of: {', '.join(known)}.",
            id="steerboard.E003",
        )
        for name, known in CHOICES.items()
        if getattr(settings, name) not in known
    ]


@register()
def links_lead_home(**kwargs: Any) -> list[CheckMessage]:
    """Without PUBLIC_URL a link in a mail begins with the host of the request, so that host must be a known one."""
    if (
        settings.EMAIL_URL
        and not settings.PUBLIC_URL
        and any(host.startswith(("*", ".")) for host in settings.ALLOWED_HOSTS)
    ):
        return [
            Error(
                "With these ALLOWED_HOSTS whoever asks for a mail decides where its links lead.",
                hint="Set PUBLIC_URL=https://steer.example.org, or name the hosts.",
                id="steerboard.E004",
            )
        ]
    return []


@register(Tags.security, deploy=True)
def reachable_over_https(**kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if settings.HTTPS and not settings.TRUSTED_PROXIES:
        found.append(
            Warning(
                "HTTPS is on, and no proxy is trusted to say that a request came over it: every page would redirect "
                "for ever.",
                hint="Set TRUSTED_PROXIES=1 for one proxy that ends TLS and sets X-Forwarded-Proto, X-Forwarded-For.",
                id="steerboard.W002",
            )
        )
    if settings.EMAIL_URL and not settings.PUBLIC_URL:
        found.append(
            Warning(
                "Links in mails begin with whatever host of ALLOWED_HOSTS the request names.",
                hint="Set PUBLIC_URL=https://steer.example.org.",
                id="steerboard.W003",
            )
        )
    return found


def missing_files(url: str) -> list[tuple[str, str]]:
    """What an address of Redis says of TLS and is not there, as (option, path)."""
    options = parse_qsl(urlsplit(url).query)
    return [
        (name, path)
        for name, path in options
        if name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") and not Path(path).is_file()
    ]


@register()
def settings_fit_together(**kwargs: Any) -> list[CheckMessage]:
    if not settings.REDIS_URL:
        return []
    found: list[CheckMessage] = []
    if settings.INFERENCE_URL.startswith(("inprocess://", "vllm://")):
        found.append(
            Error(
                "REDIS_URL is set, so several processes share the work, but each would load a model of its own.",
                hint="Point INFERENCE_URL at the workers, for example to the same address as REDIS_URL; or unset "
                "REDIS_URL to run everything in one process.",
                id="steerboard.E001",
            )
        )
    if not settings.REDIS_URL.startswith(("redis://", "rediss://", "unix://")):
        found.append(
            Error(
                f"REDIS_URL={settings.REDIS_URL!r} is not an address of Redis.",
                hint="Use redis://:password@host:6379/0.",
                id="steerboard.E002",
            )
        )
    for name, path in missing_files(settings.REDIS_URL):
        found.append(
            Error(
                f"REDIS_URL says {name}={path}, and there is no such file here.",
                hint="Name the file of the authority that signed the certificate of Redis, readable by this process.",
                id="steerboard.E003",
            )
        )
    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        found.append(
            Warning(
                "Several processes share an SQLite file, which works on one machine only and lets one write at a time.",
                hint="Set DATABASE_URL=postgres://user:password@host:5432/name.",
                id="steerboard.W001",
            )
        )
    return found
