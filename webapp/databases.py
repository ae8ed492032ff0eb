"""From DATABASE_URL to Django's settings: SQLite in the data folder unless another database is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",  # a transaction that will write waits its turn instead of failing midway
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}
CONNECT_SECONDS = 5
STATEMENT_MS = 15_000  # a statement that hangs is an error that someone sees


def database(url: str, folder: Path) -> dict[str, Any]:
    """Django's settings of one database. Raises ImproperlyConfigured for a kind that is not supported."""
    if not url:
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db.sqlite3", "OPTIONS": SQLITE_OPTIONS}
    if url.startswith(("postgres://", "postgresql://")):
        return environ.Env.db_url_config(url) | {
            "CONN_MAX_AGE": 0,  # threads come and go; a kept connection would stay open for each
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {"connect_timeout": CONNECT_SECONDS, "options": f"-c statement_timeout={STATEMENT_MS}"},
        }
    if url.startswith("sqlite://"):
        return environ.Env.db_url_config(url) | {"OPTIONS": SQLITE_OPTIONS}
    raise ImproperlyConfigured(
        "DATABASE_URL is not understood. Use postgres://user:password@host:5432/name, or leave it empty for SQLite "
        "in the data folder."
    )
