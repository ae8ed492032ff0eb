"""How Neuronpedia's inference server is spoken to: X-SECRET-KEY in, JSON out, and every refusal as {"error": sentence}.

Statuses are those that its client knows: 401 wrong key, 422 a body of the wrong shape (with FastAPI's `detail` beside
`error`), 400 a request that cannot be honoured, 404 something that is not here, 429 a spent limit, 503 with
Retry-After where trying again helps.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from inference.errors import InferenceError
from steering import metrics
from steering.access.denied import Denied
from steering.access.headers import retry_headers
from steering.access.principal import Principal, opened_by, principal_of
from steering.api.openai.body import Fields, parse_json
from steering.api.openai.errors import ApiError
from steering.threads import in_thread

log = logging.getLogger(__name__)

Ask = TypeVar("Ask")
Made = dict[str, Any] | Callable[[], dict[str, Any]] | HttpResponseBase  # a callable makes the shape, in a thread
View = Callable[..., Awaitable[Made]]
HEADER = "X-SECRET-KEY"
STATUS = {"invalid_request": 400, "not_found": 404, "busy": 503, "unavailable": 503, "engine_fault": 500}
BAD_KEY = "Invalid or missing X-SECRET-KEY header. Send an API key there; they are made on the page Keys & usage."
_HUMP = re.compile(r"(?<=[a-z0-9])([A-Z])")


class Refusal(Exception):
    """What is answered in place of a result."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        headers: dict[str, str] | None = None,
        detail: list[dict[str, Any]] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code or str(status)
        self.headers, self.detail = headers or {}, detail

    def body(self) -> dict[str, Any]:
        """With `detail` as FastAPI has it, where the shape of the request was wrong."""
        said: dict[str, Any] = {"error": self.message, "code": self.code}
        return said if self.detail is None else {"detail": self.detail, **said}

    def response(self) -> JsonResponse:
        metrics.errors.labels(self.code).inc()
        return JsonResponse(self.body(), status=self.status, headers=self.headers)


def bad(message: str, code: str = "invalid_request") -> Refusal:
    """A request that cannot be honoured: 400."""
    return Refusal(400, message, code=code)


def refusal_of(error: Exception) -> Refusal:
    """Any failure as this API tells it. What nobody foresaw is logged, and says nothing of the inside."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, Denied):
        return Refusal(
            error.status, error.message, code=error.code, headers=retry_headers(error.retry_after) | error.headers
        )
    if isinstance(error, InferenceError):
        return Refusal(
            STATUS.get(error.kind, 500), error.message, code=error.code, headers=retry_headers(error.retry_after)
        )
    if isinstance(error, ApiError):
        return Refusal(error.status, error.message, code=error.code or "", headers=error.headers)
    if isinstance(error, RequestDataTooBig):
        return Refusal(413, "The body is larger than 2.5 MB. Send less at once.", code="request_too_large")
    log.error("A request of Neuronpedia's client failed", exc_info=error)
    return Refusal(500, "The server failed. Try again.", code="server_error")


def misshapen(error: ApiError) -> Refusal:
    """A field that is missing or of the wrong type, as FastAPI says it."""
    place = ["body", *(error.param or "").split(".")] if error.param else ["body"]
    detail = [{"type": error.code or "value_error", "loc": place, "msg": error.message}]
    return Refusal(422, error.message, code=error.code or "invalid_body", detail=detail)


def read_body(raw: bytes) -> Fields:
    """The object in a body; camelCase names of fields are taken too. Raises Refusal(422)."""
    try:
        return Fields(snake(parse_json(raw)))
    except ApiError as error:
        raise misshapen(error) from None


def snake(value: Any) -> Any:
    """Names of fields in snake_case, which is what the client sends; newer servers take both."""
    if isinstance(value, dict):
        return {_HUMP.sub(lambda m: "_" + m[1].lower(), key): snake(inner) for key, inner in value.items()}
    return [snake(inner) for inner in value] if isinstance(value, list) else value


def who_asks(request: HttpRequest) -> Principal:
    """By X-SECRET-KEY; else as at every other address (Bearer, X-API-Key, a session). Raises Refusal(401), Denied."""
    secret = request.headers.get(HEADER)
    try:
        if secret is None:
            return principal_of(request)
        found = opened_by(secret.strip())
    except Denied as error:
        if error.status != 401:
            raise
        why = f" {error.message}" if error.code in ("revoked_key", "expired_key", "account_inactive") else ""
        raise Refusal(401, BAD_KEY + why, code=error.code, headers=error.headers) from None
    request.principal = found  # type: ignore[attr-defined]  # for the log's line on this request
    return found


def operation(parse: Callable[[Fields], Ask], *, scope: str = "generate") -> Callable[[View], Any]:
    """A POST of the client: `view(who, ask)` gives what becomes JSON, or a response of its own.

    Large answers are shaped and written as JSON in a thread, so that nobody else waits for them.

    `parse` reads the body; what it finds missing or of the wrong type (ApiError) is a 422, a Refusal what it says.
    """

    def around(view: View) -> Any:
        async def answered(request: HttpRequest) -> HttpResponseBase:
            try:
                who, ask = await in_thread(read)(request, parse, scope)
                answer = await view(who, ask)
                return answer if isinstance(answer, HttpResponseBase) else await in_thread(written)(answer)
            except Exception as error:
                return refusal_of(error).response()

        answered.__name__, answered.__doc__ = view.__name__, view.__doc__
        return login_not_required(csrf_exempt(answered))

    return around


JSON = {"allow_nan": False, "ensure_ascii": False, "separators": (",", ":")}


def written(answer: dict[str, Any] | Callable[[], dict[str, Any]]) -> JsonResponse:
    return JsonResponse(answer() if callable(answer) else answer, json_dumps_params=JSON)


def read(request: HttpRequest, parse: Callable[[Fields], Ask], scope: str) -> tuple[Principal, Ask]:
    """Who asks, and what. Raises Refusal and Denied."""
    if request.method != "POST":
        message = f"This address answers to POST, and this was a {request.method}."
        raise Refusal(405, message, code="method_not_allowed", headers={"Allow": "POST"})
    who = who_asks(request)
    who.require(scope)
    body = read_body(request.body)
    try:
        return who, parse(body)
    except ApiError as error:
        raise misshapen(error) from None


# ---- fields that several operations have ----


def required(body: Fields, *names: str) -> None:
    """Raises ApiError for the first that is missing."""
    for name in names:
        if not body.has(name):
            raise body.missing(name)


def texts_of(body: Fields, name: str) -> tuple[str, ...]:
    """A required array of strings, which may be empty. Raises ApiError."""
    items = body.items(name)
    if items is None:
        raise body.missing(name)
    if not all(isinstance(item, str) for item in items):
        raise body.wrong_type(name, "an array of strings")
    return tuple(items)


def wholes_of(body: Fields, name: str) -> tuple[int, ...]:
    """An array of integers, empty where it is missing. Raises ApiError."""
    items = body.items(name) or []
    if not all(isinstance(item, int) and not isinstance(item, bool) for item in items):
        raise body.wrong_type(name, "an array of integers")
    return tuple(items)


def numbers_of(body: Fields, name: str) -> tuple[float, ...]:
    """A required array of numbers, all of which float32 can hold. Raises ApiError."""
    items = body.items(name)
    if items is None:
        raise body.missing(name)
    if not all(isinstance(item, int | float) and not isinstance(item, bool) for item in items):
        raise body.wrong_type(name, "an array of numbers")
    if not all(-LARGEST <= item <= LARGEST for item in items):
        raise body.wrong_type(name, "an array of numbers that fit into 32 bits")
    return tuple(float(item) for item in items)


LARGEST = 3.4e38  # float32
