"""What may go wrong, by name. Every error says what to do: in its message, or in `cure` beside it."""

from __future__ import annotations

from typing import Any


class SteerboardError(Exception):
    """All errors of this package.

    `status_code`: of the answer, None where there was none. `details`: the answer's JSON, or its text. `code`: the
    server's own name of the failure. `request_id`: finds it in the server's log. `retry_after`: seconds after which
    trying again helps. `cure`: what to do about it, where the message does not say.
    """

    def __init__(
        self,
        message: str,
        status_code: int | None = None,
        details: Any = None,
        *,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        cure: str | None = None,
    ):
        super().__init__(message)
        self.message, self.status_code, self.details = message, status_code, details
        self.code, self.request_id, self.retry_after, self.cure = code, request_id, retry_after, cure

    def __str__(self) -> str:
        status = f"[{self.status_code}] " if self.status_code is not None else ""
        return f"{status}{self.message}" + (f" {self.cure}" if self.cure else "")


class AuthenticationError(SteerboardError):
    """401: no credentials, or such as are wrong, expired or revoked."""


class NotFoundError(SteerboardError):
    """404: it is not there, or not yours."""


class ValidationError(SteerboardError):
    """400 or 422: the request cannot be honoured as it is; `fields` has what is at fault by its path."""

    @property
    def fields(self) -> dict[str, str]:
        error = self.details.get("error") if isinstance(self.details, dict) else None
        fields = error.get("fields") if isinstance(error, dict) else None
        return {str(name): str(said) for name, said in fields.items()} if isinstance(fields, dict) else {}


class RateLimitError(SteerboardError):
    """429: too much at once. `retry_after` says when to come back."""


class QuotaError(RateLimitError):
    """402, or 429 where no short wait helps: what one may use is used up."""


class APIError(SteerboardError):
    """Any other answer that is no success, or that cannot be read."""


class PermissionDeniedError(APIError):
    """403: known, but not allowed to do this."""


class ConflictError(APIError):
    """409: somebody else saved a newer version, or the state does not allow it."""


class OverloadedError(APIError):
    """503: the server is full, loads its model, or goes down. `retry_after` says when to come back."""


class APIConnectionError(APIError):
    """No answer: the server cannot be reached, or hung up."""


class APITimeoutError(APIConnectionError):
    """No answer in time."""


class StreamInterrupted(APIConnectionError):
    """A stream of tokens broke off. It is not asked for again by itself: `so_far` is what had come."""

    def __init__(self, message: str, *, so_far: str = "", request_id: str | None = None, cure: str | None = None):
        super().__init__(message, request_id=request_id, cure=cure)
        self.so_far = so_far


class JobFailed(APIError):
    """A job that the server had taken on failed or was cancelled. `details` is the job as the server tells it."""


MechanexError = SteerboardError  # the name that programs written for Mechanex catch
