"""How Mechanex's client is spoken to: JSON in and out, `{"detail": …}` for refusals, events, and patience.

Its client takes every 2xx for success and reads the body as JSON, gives up on a POST that is silent for a minute, and
buffers events until the stream closes, of which the last "complete" counts.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.db import Error as DatabaseTrouble
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt
from rest_framework.utils.encoders import JSONEncoder

from inference.errors import InferenceError
from steering import metrics
from steering.access.denied import Denied
from steering.access.headers import retry_headers
from steering.access.principal import Principal, principal_of
from steering.accounts import programs
from steering.accounts.mailing import MailNotSent
from steering.api.openai.body import Fields, parse_json
from steering.api.openai.errors import ApiError
from steering.api.openai.threads import in_thread

log = logging.getLogger(__name__)

View = Callable[..., Awaitable[Any]]

STATUS = {"invalid_request": 422, "not_found": 404, "denied": 403, "busy": 503, "unavailable": 503, "engine_fault": 500}
FIRST_SECONDS = 5.0  # what fails within them is refused with a status of its own
BEAT_SECONDS = 5.0  # between two signs of life while work lasts
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
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
    log.error("An operation of Mechanex broke", exc_info=error)
    return 500, "The server failed. Try again; if it repeats, tell whoever runs it the X-Request-ID.", {}


def wrong_method(request: HttpRequest, allowed: str) -> ApiError:
    message = f"This address answers to {allowed}, and this was a {request.method}."
    return ApiError(405, "method_not_allowed", message, headers={"Allow": allowed})


def as_json(answer: Any) -> JsonResponse:
    return JsonResponse(answer, safe=False, encoder=JSONEncoder, json_dumps_params={"ensure_ascii": False})


# ---- events ----


async def events(source: AsyncIterator[dict[str, Any]]) -> HttpResponseBase:
    """Server-sent events `{"status": "progress" | "complete", …}`. What fails before the first one is raised.

    A later failure is `{"status": "error", "message": sentence}`. Whoever leaves ends the work.
    """
    first = asyncio.ensure_future(anext(source, None))
    kept = False
    try:
        await asyncio.wait({first}, timeout=FIRST_SECONDS)
        if first.done():
            first.result()
        kept = True
        return StreamingHttpResponse(
            _sent(first, source), content_type="text/event-stream; charset=utf-8", headers=STREAM_HEADERS
        )
    finally:
        if not kept:
            await _end(first, source)


async def _sent(first: asyncio.Future[Any], source: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    reading = first
    try:
        while True:
            await asyncio.wait({reading}, timeout=BEAT_SECONDS)
            if not reading.done():
                yield b": still here\n\n"
                continue
            event = reading.result()
            if event is None:
                return
            yield _frame(event)
            reading = asyncio.ensure_future(anext(source, None))
    except Exception as error:
        yield _frame({"status": "error", "message": explained(error)[1]})
    finally:
        await _end(reading, source)


def _frame(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'), cls=JSONEncoder)}\n\n".encode()


async def _end(reading: asyncio.Future[Any], source: AsyncIterator[dict[str, Any]]) -> None:
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await source.aclose()  # type: ignore[attr-defined]


# ---- patience ----


async def patient(work: Awaitable[Any]) -> HttpResponseBase:
    """What `work` returns, as JSON, preceded by spaces while it lasts. Whoever leaves ends the work.

    What fails within the first seconds is raised. A later failure can have no status any more: the body is then
    `error 503: sentence`, which is no JSON, so that no client takes it for success.
    """
    working = asyncio.ensure_future(work)
    kept = False
    try:
        await asyncio.wait({working}, timeout=FIRST_SECONDS)
        if working.done():
            return as_json(working.result())
        kept = True
        return StreamingHttpResponse(_awaited(working), content_type="application/json", headers=STREAM_HEADERS)
    finally:
        if not kept:
            await _stop(working)


async def _awaited(working: asyncio.Future[Any]) -> AsyncIterator[bytes]:
    try:
        while not working.done():
            yield b" "
            await asyncio.wait({working}, timeout=BEAT_SECONDS)
        yield as_json(working.result()).content
    except Exception as error:
        status, sentence, _ = explained(error)
        yield f"error {status}: {sentence}".encode()
    finally:
        await _stop(working)


async def _stop(working: asyncio.Future[Any]) -> None:
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
