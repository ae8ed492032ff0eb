"""What a program is told of a failure: a status that its client knows, a sentence, and when to try again."""

from __future__ import annotations

import logging

from django.core.exceptions import RequestDataTooBig
from django.db import Error as DatabaseTrouble
from django.http import HttpRequest

from inference.errors import InferenceError
from steering.access.denied import Denied
from steering.access.headers import retry_headers
from steering.accounts import programs
from steering.accounts.mailing import MailNotSent
from steering.api.openai.errors import ApiError

log = logging.getLogger(__name__)

STATUS = {"invalid_request": 422, "not_found": 404, "denied": 403, "busy": 503, "unavailable": 503, "engine_fault": 500}


def explained(error: Exception) -> tuple[int, str, dict[str, str]]:
    """Status, sentence and headers of a failure."""
    if isinstance(error, ApiError):
        return (422 if error.status == 400 else error.status), error.message, error.headers
    if isinstance(error, Denied):
        return error.status, error.message, error.headers
    if isinstance(error, InferenceError):
        return STATUS.get(error.kind, 500), error.message, retry_headers(error.retry_after)
    if isinstance(error, programs.Refused):
        again = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        return error.status, error.sentence, again
    if isinstance(error, MailNotSent):
        return 503, "The mail server did not take a mail. Try again later, or ask whoever runs this server.", {}
    if isinstance(error, RequestDataTooBig):
        return 413, "The body is larger than 2.5 MB. Send less at once.", {}
    if isinstance(error, DatabaseTrouble):
        log.warning("The database does not answer", exc_info=error)
        return 503, "The database does not answer. Try again in a moment.", {"Retry-After": "5"}
    log.error("An operation for programs broke", exc_info=error)
    return 500, "The server failed. Try again; if it repeats, tell whoever runs it the X-Request-ID.", {}


def wrong_method(request: HttpRequest, allowed: str) -> ApiError:
    message = f"This address answers to {allowed}, and this was a {request.method}."
    return ApiError(405, "method_not_allowed", message, headers={"Allow": allowed})
