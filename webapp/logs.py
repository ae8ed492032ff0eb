"""How the processes of the product log: see `inference.logs` for the lines, `webapp.access` for one line a request."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from inference.logs import log_settings

ACCESS = "steerboard.access"


class RouteForPath(logging.Filter):
    """Django names the path of a request that failed; a path can hold a one-time token, its route cannot."""

    def filter(self, record: logging.LogRecord) -> bool:
        request = getattr(record, "request", None)
        path = getattr(request, "path", None)
        if path and isinstance(record.args, tuple):
            match = getattr(request, "resolver_match", None)
            route = f"/{match.route}" if match else "an unknown address"
            record.args = tuple(route if arg == path else arg for arg in record.args)
        return True


def logging_settings(format: str) -> dict[str, Any]:
    """Django's LOGGING. Raises ImproperlyConfigured for a format that there is not."""
    try:
        lines = log_settings(format, quiet=("axes", "daphne", "httpx", "django.request"))
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from None
    lines["filters"]["route"] = {"()": RouteForPath}
    lines["handlers"]["console"]["filters"].append("route")
    lines["loggers"] |= {
        "django": {"level": "INFO", "handlers": [], "propagate": True},
        ACCESS: {"level": "DEBUG" if format == "json" else "INFO"},  # at a terminal the pages' polling is left out
    }
    lines["loggers"]["django.request"]["level"] = "ERROR"  # a 404 has its access line
    return lines
