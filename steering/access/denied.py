"""Why someone is not let in, with what an HTTP response needs to say so."""

from __future__ import annotations

from inference.errors import InferenceError

KIND_OF_STATUS = {401: "denied", 403: "denied", 404: "not_found", 429: "busy"}


class Denied(InferenceError):
    """`status` is 401, 403, 404 or 429; `headers` go with the refusal, Retry-After and x-ratelimit-* among them."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(code, message, retry_after=retry_after)
        self.status = status
        self.kind = KIND_OF_STATUS.get(status, "denied")
        self.headers = headers or {}
