"""Combinations of settings that cannot work, each refused with its cure before anything starts."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register


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
    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        found.append(
            Warning(
                "Several processes share an SQLite file, which works on one machine only and lets one write at a time.",
                hint="Set DATABASE_URL=postgres://user:password@host:5432/name.",
                id="steerboard.W001",
            )
        )
    return found
