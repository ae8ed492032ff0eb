"""Every failure in one shape: {"error": {"code", "message", "request_id", "fields"?}}."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404, HttpRequest, JsonResponse
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from inference.errors import InferenceError
from steering import metrics
from steering.access.principal import Denied
from steering.api.idempotency import RETRY_SECONDS, KeyReused, StillRunning

STATUS = {"invalid_request": 400, "not_found": 404, "busy": 429, "unavailable": 503, "engine_fault": 500}
NOT_FOUND = "There is no such thing here, or it is not yours. Check the id, or list what there is."
SENTENCES = {
    "not_authenticated": "This needs an API key or a session. Send Authorization: Bearer sk-sb-….",
    "method_not_allowed": "This address does not take that method. The header Allow says which it takes.",
}


class Refused(Exception):
    """What a view says no with. `fields` names what is at fault, by its path in the request."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: dict[str, str] | None = None,
        retry_after: float | None = None,
    ):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.fields, self.retry_after = fields or {}, retry_after


def error_body(request: HttpRequest, error: Refused) -> dict[str, Any]:
    body: dict[str, Any] = {
        "code": error.code,
        "message": _text(error.message),
        "request_id": getattr(request, "id", "-"),
    }
    fields = {_text(name): _text(said) for name, said in error.fields.items()}
    return {"error": body | ({"fields": fields} if fields else {})}


def _text(said: str) -> str:
    """Refusals may quote half a pair of surrogates, which no answer can carry."""
    return said.encode(errors="replace").decode()


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler. None for what the middleware explains: the database, Redis, the disk, our own bugs."""
    known = _known(error)
    if known is None:
        return None
    set_rollback()
    metrics.errors.labels(known.code).inc()
    headers = dict(getattr(error, "headers", None) or {})
    if known.status == 401:
        headers.setdefault("WWW-Authenticate", 'Bearer realm="steerboard"')
    if known.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(known.retry_after)))
    return Response(error_body(context["request"], known), status=known.status, headers=headers)


def _known(error: Exception) -> Refused | None:
    match error:
        case Refused():
            return error
        case Denied():
            return Refused(error.status, error.code, error.message, retry_after=error.retry_after)
        case InferenceError():
            status = STATUS.get(error.kind, 500)
            return Refused(status, error.code, error.message, retry_after=error.retry_after)
        case KeyReused():
            return Refused(
                422,
                "idempotency_key_reused",
                "This Idempotency-Key was sent before with another request. Use a new key for every new request.",
            )
        case StillRunning():
            return Refused(
                409,
                "request_in_progress",
                "The first request with this Idempotency-Key is still being answered. Send it again in a second.",
                retry_after=RETRY_SECONDS,
            )
        case Http404():
            return Refused(404, "not_found", NOT_FOUND)
        case RequestDataTooBig():
            return Refused(413, "too_large", "This request is too large. Send less, or import a file.")
        case PermissionDenied():
            return Refused(403, "forbidden", str(error) or "Your account may not do this.")
        case exceptions.APIException():
            return _of_framework(error)
    return None


def _of_framework(error: exceptions.APIException) -> Refused:
    if isinstance(error, exceptions.ValidationError):
        return invalid(error.detail)
    code = error.get_codes() if isinstance(error.get_codes(), str) else error.default_code
    message = SENTENCES.get(code) or str(error.detail)
    return Refused(error.status_code, code, message, retry_after=getattr(error, "wait", None))


def invalid(detail: Any) -> Refused:
    """A 400 that names every field at fault."""
    fields = dict(_flat(detail))
    first, said = next(iter(fields.items()), ("", "This request is not valid."))
    message = f"{first}: {said}" if first else said
    if len(fields) > 1:
        message += f" ({len(fields) - 1} more: see fields.)"
    return Refused(400, "invalid_request", message, fields={name: text for name, text in fields.items() if name})


def _flat(detail: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(detail, dict):
        return [pair for name, inner in detail.items() for pair in _flat(inner, _joined(path, str(name)))]
    if isinstance(detail, list):
        if any(isinstance(inner, dict | list) for inner in detail):
            return [pair for i, inner in enumerate(detail) if inner for pair in _flat(inner, _joined(path, str(i)))]
        return [(path, " ".join(map(str, detail)))]
    return [(path, str(detail))]


def _joined(path: str, name: str) -> str:
    return path if name == "non_field_errors" else f"{path}.{name}".lstrip(".")


def no_such_address(request: HttpRequest, **kwargs: Any) -> JsonResponse:
    """For every address under the API that is none."""
    path = request.path
    cure = "" if path.endswith("/") else " Addresses here end with a slash."
    said = f"There is nothing at {path[:200]}.{cure} /api/v1/schema/ lists every address."
    return JsonResponse(error_body(request, Refused(404, "no_such_address", said)), status=404)
