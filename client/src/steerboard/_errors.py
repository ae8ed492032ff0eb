"""Which error an answer is. Reads all shapes in which Steerboard refuses: REST's, OpenAI's and Mechanex's."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping
from typing import Any

from steerboard._wire import Reply, Request
from steerboard.errors import (
    APIError,
    AuthenticationError,
    ConflictError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaError,
    RateLimitError,
    SteerboardError,
    ValidationError,
)

KINDS: dict[int, type[SteerboardError]] = {
    400: ValidationError,
    401: AuthenticationError,
    402: QuotaError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    411: ValidationError,
    413: ValidationError,
    415: ValidationError,
    422: ValidationError,
    429: RateLimitError,
    503: OverloadedError,
}
QUOTA = {"insufficient_quota", "quota_spent"}
SHOWN = 300
MINUTE = 60.0  # seconds


def of_reply(request: Request, reply: Reply) -> SteerboardError:
    details = _details(reply)
    code, message = _code(details), _message(details)
    kind = KINDS.get(reply.status, APIError)
    if reply.status == 429 and (code in QUOTA or (code is None and _no_minute(reply))):
        kind = QuotaError
    cure = None
    if 300 <= reply.status < 400:
        message = f"{request.method} {request.path} was sent on to {reply.headers.get('location', 'elsewhere')}."
        cure = "Credentials are not sent along; use the address of the server itself as its URL."
    return kind(
        message or f"{request.method} {request.path} was answered with {reply.status}.",
        reply.status,
        details,
        code=code,
        request_id=reply.headers.get("x-request-id") or _request_id(details),
        retry_after=retry_after(reply.headers),
        cure=cure or _cure(details),
    )


def _no_minute(reply: Reply) -> bool:
    """Where the reason has no name: a limit by the minute is over within one."""
    after = retry_after(reply.headers)
    return after is None or after > MINUTE


def of_event(details: Any, request_id: str | None = None) -> SteerboardError:
    """Of an error that came in the middle of a stream."""
    code = _code(details)
    kind = QuotaError if code in QUOTA else OverloadedError if code in ("queue_full", "draining") else APIError
    return kind(_message(details) or "The stream failed.", None, details, code=code, request_id=request_id)


def of_late(details: Any) -> SteerboardError:
    """Of a failure that came after the answer had begun, when its status could not be changed any more."""
    status = details.get("status_code")
    status = status if isinstance(status, int) else None
    kind = KINDS.get(status or 0, APIError)
    code = _code(details)
    return (QuotaError if code in QUOTA else kind)(_message(details) or "The work failed.", status, details, code=code)


def code_of(reply: Reply) -> str | None:
    return _code(_details(reply))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; the header has a number or a date."""
    said = headers.get("retry-after", "").strip()
    if not said:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        when = email.utils.parsedate_to_datetime(said) if "," in said else None
        return max(0.0, when.timestamp() - time.time()) if when else None


def _details(reply: Reply) -> Any:
    try:
        return json.loads(reply.content)
    except ValueError:
        return reply.text


def _error(details: Any) -> Mapping[str, Any]:
    error = details.get("error") if isinstance(details, Mapping) else None
    return error if isinstance(error, Mapping) else {}


def _code(details: Any) -> str | None:
    code = _error(details).get("code") or (details.get("code") if isinstance(details, Mapping) else None)
    return code if isinstance(code, str) else None


def _request_id(details: Any) -> str | None:
    said = _error(details).get("request_id")
    return said if isinstance(said, str) else None


def _cure(details: Any) -> str | None:
    said = _error(details).get("cure")
    return said if isinstance(said, str) else None


def _message(details: Any) -> str:
    if isinstance(details, str):  # a page of HTML says nothing to a program
        return "" if details.lstrip().startswith("<") else details.strip()[:SHOWN]
    if not isinstance(details, Mapping):
        return ""
    error = details.get("error")
    for said in (_error(details).get("message"), details.get("detail"), details.get("message"), error):
        if isinstance(said, str) and said:
            return said
        if isinstance(said, list) and said:
            return "; ".join(_one(each) for each in said)[:SHOWN]
    return ""


def _one(each: Any) -> str:
    """A line of FastAPI's list of errors."""
    if isinstance(each, Mapping) and "msg" in each:
        place = ".".join(str(part) for part in each.get("loc", ()) if part != "body")
        return f"{place}: {each['msg']}" if place else str(each["msg"])
    return str(each)
