"""With what the command line ends: a number per kind of failure, so that scripts can tell them apart."""

from __future__ import annotations

from typing import Any

from steerboard.errors import (
    AuthenticationError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    SteerboardError,
)

DONE, ERROR, USAGE, AUTH, NOT_FOUND, BUSY = 0, 1, 2, 3, 4, 5
INTERRUPTED = 130

_CODES: list[tuple[type[SteerboardError], int]] = [
    (AuthenticationError, AUTH),
    (PermissionDeniedError, AUTH),
    (NotFoundError, NOT_FOUND),
    (RateLimitError, BUSY),  # a spent quota too
    (OverloadedError, BUSY),
]


def code_of(error: SteerboardError) -> int:
    return next((code for kind, code in _CODES if isinstance(error, kind)), ERROR)


def wire_of(error: SteerboardError) -> dict[str, Any]:
    """A failure as --json tells it."""
    return {
        "error": {
            "kind": type(error).__name__,
            "message": error.message,
            "cure": error.cure,
            "code": error.code,
            "status": error.status_code,
            "retry_after": error.retry_after,
            "request_id": error.request_id,
            "exit_code": code_of(error),
        }
    }
