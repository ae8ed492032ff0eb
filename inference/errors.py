"""Everything that can go wrong on the model side, each kind with a stable code.

An error says what happened and what to do about it; `code` is for programs and never changes, `message` is for people.
"""

from __future__ import annotations


class InferenceError(Exception):
    """Base of all errors that cross the boundary between the product and the model.

    `code` is stable and machine readable. `retry_after` is in seconds, where trying again can help.
    """

    kind = "error"

    def __init__(self, code: str, message: str, *, retry_after: float | None = None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def to_wire(self) -> dict[str, object]:
        return {"kind": self.kind, "code": self.code, "message": self.message, "retry_after": self.retry_after}


class InvalidRequest(InferenceError):
    """The request cannot be honoured exactly; the message names the way out. HTTP 400."""

    kind = "invalid_request"


class NotFound(InferenceError):
    """A vector, model or file that the request names does not exist. HTTP 404."""

    kind = "not_found"


class Busy(InferenceError):
    """The waiting list is full; try again after `retry_after` seconds. HTTP 429 or 503."""

    kind = "busy"


class Unavailable(InferenceError):
    """The model is not loaded, failed to load, or its worker is gone. HTTP 503."""

    kind = "unavailable"


class EngineFault(InferenceError):
    """A bug or an exhausted resource inside the engine. HTTP 500. The run is lost, the engine goes on."""

    kind = "engine_fault"


KINDS: dict[str, type[InferenceError]] = {
    cls.kind: cls for cls in (InferenceError, InvalidRequest, NotFound, Busy, Unavailable, EngineFault)
}


def from_wire(data: dict[str, object]) -> InferenceError:
    """Rebuild an error from `to_wire`; an unknown kind becomes a plain InferenceError."""
    retry = data.get("retry_after")
    cls = KINDS.get(str(data.get("kind")), InferenceError)
    return cls(
        str(data.get("code", "unknown")),
        str(data.get("message", "")),
        retry_after=float(retry) if isinstance(retry, (int, float)) else None,
    )
