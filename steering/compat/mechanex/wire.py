"""How Mechanex's client is spoken to: JSON in and out, `{"detail": …}` for refusals.

What takes long is answered as `steering/compat/answering.py` says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from steering import metrics
from steering.access.denied import Denied
from steering.access.principal import Principal, principal_of
from steering.api.openai.body import Fields, parse_json
from steering.api.openai.errors import ApiError
from steering.compat.answering import as_json
from steering.compat.refusing import explained, wrong_method
from steering.threads import in_thread

View = Callable[..., Awaitable[Any]]

HOW = "Send a key as x-api-key, or an access token as “Authorization: Bearer …”. Keys are made on Keys & usage."


# ---- one operation ----


def operation(
    scope: str | None = None, *, method: str = "POST", anonymous: bool = False, asks: bool = True
) -> Callable[[View], Any]:
    """A view `async (request, who, body, **path) -> object | HttpResponse`; what it raises becomes a refusal.

    `who` is the Principal of a key or an access token with this scope; None where `anonymous` and nothing was sent, and
    always where it `asks` nobody: then the body must say that it is JSON, which no form of another site can do without
    being asked for leave first. `body` are the Fields of the JSON body, of which none need be read. An object or a list
    is answered as JSON.
    """

    def around(view: View) -> Any:
        async def answered(request: HttpRequest, **path: Any) -> HttpResponseBase:
            try:
                return await _answered(view, request, path)
            except Exception as error:
                return refusal(error)

        async def _answered(view: View, request: HttpRequest, path: dict[str, Any]) -> HttpResponseBase:
            if request.method != method:
                raise wrong_method(request, method)
            if not asks and method == "POST":
                _refuse_forms(request)
            who = await in_thread(_caller)(request, scope, anonymous) if asks else None
            body = Fields(parse_json(request.body) if method in ("POST", "PATCH") and request.body.strip() else {})
            answer = await view(request, who, body, **path)
            return answer if isinstance(answer, HttpResponseBase) else as_json(answer)

        answered.__name__, answered.__doc__ = view.__name__, view.__doc__
        return login_not_required(csrf_exempt(answered))

    return around


def by_method(**views: Any) -> Any:
    """One address, one operation per method: `by_method(GET=listed, POST=create)`."""

    async def answered(request: HttpRequest, **path: Any) -> HttpResponseBase:
        view = views.get(request.method or "")
        if view is None:
            return refusal(wrong_method(request, ", ".join(views)))
        answer: HttpResponseBase = await view(request, **path)
        return answer

    return login_not_required(csrf_exempt(answered))


def or_page(view: Any) -> Any:
    """For an address that is a page's with a slash at its end: browsers are sent there."""

    async def answered(request: HttpRequest, **path: Any) -> HttpResponseBase:
        if "text/html" in request.headers.get("Accept", ""):
            query = request.META.get("QUERY_STRING", "")
            return HttpResponseRedirect(request.path + "/" + (f"?{query}" if query else ""))
        answer: HttpResponseBase = await view(request, **path)
        return answer

    return login_not_required(csrf_exempt(answered))


def _refuse_forms(request: HttpRequest) -> None:
    if request.content_type != "application/json":
        raise ApiError(415, "not_json", "Send the body as JSON, with the header “Content-Type: application/json”.")


def _caller(request: HttpRequest, scope: str | None, anonymous: bool) -> Principal | None:
    """A browser's session counts for nothing here: these addresses are for programs."""
    if "Authorization" not in request.headers and "X-API-Key" not in request.headers:
        if anonymous:
            return None
        raise Denied(401, "missing_key", f"This needs an API key or an access token. {HOW}")
    who = principal_of(request)
    if scope is not None:
        who.require(scope)
    return who


# ---- refusing ----


def refusal(error: Exception) -> JsonResponse:
    """Any failure as `{"detail": sentence}` with its status; what nobody foresaw is logged."""
    status, sentence, headers = explained(error)
    code = getattr(error, "code", None) or str(status)
    metrics.errors.labels(code).inc()
    return JsonResponse({"detail": sentence}, status=status, headers=headers)
