"""Combinations of settings that cannot work, each refused with its cure before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register


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
    if settings.INFERENCE_URL.startswith("inprocess://"):
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
