"""Log lines of every process, plain or as JSON: each names the request that caused it, none holds a secret.

A line never holds what people wrote or what a model answered: log the id of a run or a job, not its texts. What slips
into a line all the same, a token in an address, a password in a URL, a bearer header, is taken out by `redacted`.
"""

from __future__ import annotations

import json
import logging
import re
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

cause: ContextVar[str] = ContextVar("cause", default="-")  # the id of the request for which something is done

FORMATS = ("text", "json")
GONE = "…"
_SECRETS = [
    (re.compile(r"\bsk-sb-([A-Za-z0-9]+)-[A-Za-z0-9_-]+"), rf"sk-sb-\1-{GONE}"),
    (re.compile(r"\b(Bearer|Basic|Token) +[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1 {GONE}"),
    (re.compile(r"(://[^/\s:@]*):[^/\s@]+@"), rf"\1:{GONE}@"),
    (
        re.compile(r"\b((?:sessionid|csrftoken|csrfmiddlewaretoken|password|secret|token|key)=)[^&;\s'\"]+", re.I),
        rf"\1{GONE}",
    ),
    (re.compile(r"(/accounts/(?:[\w-]+/)*?)[\w:-]{16,}"), rf"\1{GONE}"),  # links that sign in, confirm, invite or reset
    (re.compile(r"^DETAIL: .*$", re.MULTILINE), f"DETAIL: {GONE}"),  # PostgreSQL quotes the row that it refuses
]


def redacted(text: str) -> str:
    """`text` without keys, passwords in URLs, authorization headers and one-time tokens in paths."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class Cause(logging.Filter):
    """Gives every record `request_id`."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = cause.get()
        return True


class TextLines(logging.Formatter):
    """For people at a terminal."""

    def __init__(self) -> None:
        super().__init__("{asctime} {levelname} {request_id} {name}: {message}", style="{")

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


class JsonLines(logging.Formatter):
    """One object a line, for programs. `logger.info(…, extra={"facts": {…}})` puts more beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
            "request_id": getattr(record, "request_id", "-"),
        }
        line |= {name: value for name, value in getattr(record, "facts", {}).items() if name not in line}
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=lambda value: redacted(str(value)))


def log_settings(format: str, quiet: tuple[str, ...] = ()) -> dict[str, Any]:
    """What `logging.config.dictConfig` takes. `quiet` loggers speak from warnings on. Raises ValueError."""
    if format not in FORMATS:
        raise ValueError(f"LOG_FORMAT={format!r} is not known. Use one of: {', '.join(FORMATS)}.")
    formatter = {"text": TextLines, "json": JsonLines}[format]
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"cause": {"()": Cause}},
        "formatters": {"line": {"()": formatter}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["cause"]}},
        "root": {"handlers": ["console"], "level": "INFO"},
        "loggers": {name: {"level": "WARNING"} for name in quiet},
    }
