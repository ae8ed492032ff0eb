"""How the older server was spoken to: a `secret` in the body, no prefix, camelCase out, `{"error": …}` for refusals.

`error` is what that server said, word for word where its programs may compare it; `message` is a sentence with a cure.
It answered every refusal with 200; here they have a status: 400, 403 (the secret), 404, 405, 413, 429, 500, 503.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from steering import metrics
from steering.access.denied import Denied
from steering.access.principal import Principal, opened_by
from steering.api.openai.body import Fields
from steering.api.openai.errors import ApiError
from steering.compat.neuronpedia.wire import Refusal, misshapen, read_body, refusal_of, written
from steering.threads import in_thread

Ask = TypeVar("Ask")
View = Callable[..., Awaitable[dict[str, Any] | Callable[[], dict[str, Any]]]]
SOURCE = "older"  # in the ledger
FORBIDDEN, INVALID, UNSUPPORTED = "Forbidden", "Invalid request data", "Unsupported model"
HOW = "Send an API key of this server as secret: they are made on its page Keys & usage."


def operation(parse: Callable[[Fields], Ask]) -> Callable[[View], Any]:
    """A POST: `view(who, ask)` gives what becomes JSON. `parse` reads the body; what it raises is a refusal."""

    def around(view: View) -> Any:
        async def answered(request: HttpRequest) -> HttpResponseBase:
            try:
                who, ask = await in_thread(read)(request, parse)
                return await in_thread(written)(await view(who, ask))
            except Exception as error:
                return refusal(error)

        answered.__name__, answered.__doc__ = view.__name__, view.__doc__
        return login_not_required(csrf_exempt(answered))

    return around


def read(request: HttpRequest, parse: Callable[[Fields], Ask]) -> tuple[Principal, Ask]:
    """Who asks, and what. Raises Refusal and Denied."""
    if request.method != "POST":
        message = f"This address answers to POST, and this was a {request.method}."
        raise Refusal(405, message, code="method_not_allowed", headers={"Allow": "POST"})
    body = read_body(request.body)
    who = _who(request, body)
    try:
        return who, parse(body)
    except ApiError as error:
        raise misshapen(error) from None


def _who(request: HttpRequest, body: Fields) -> Principal:
    try:
        secret = body.text("secret")
        found = opened_by((secret or "").strip())
    except ApiError as error:
        raise misshapen(error) from None
    except Denied as error:
        raise Refusal(403, error.message if secret else HOW, code=error.code) from None
    request.principal = found  # type: ignore[attr-defined]  # for the log's line on this request
    found.require("generate")
    return found


def refusal(error: Exception) -> JsonResponse:
    found = refusal_of(error)
    status = 400 if found.status in (401, 422) else found.status
    metrics.errors.labels(found.code).inc()
    body = {"error": said(found), "message": found.message, "code": found.code}
    return JsonResponse(body, status=status, headers=found.headers)


def said(found: Refusal) -> str:
    """The older server's own words where it had some for this."""
    if found.code in ("completion_type", "steering_method"):
        return found.message.partition(". ")[0]
    if found.status == 403:
        return FORBIDDEN
    if found.status == 422:
        return INVALID
    return UNSUPPORTED if found.code == "unsupported_model" else found.message
