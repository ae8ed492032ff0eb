"""Error pages. Each says what happened, why, and what to do, with the id under which the log has the rest."""

from __future__ import annotations

import errno
import sqlite3
import sys
from dataclasses import asdict, dataclass

from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from inference.errors import InferenceError
from steering import metrics
from steering.access.denied import Denied
from steering.accounts.mailing import MailNotSent
from steering.api.openai import errors as openai


@dataclass(frozen=True)
class Explanation:
    status: int
    code: str
    what: str
    why: str
    cure: str = ""


HTTP_STATUS = {"invalid_request": 400, "not_found": 404, "busy": 429, "unavailable": 503, "engine_fault": 500}
INFERENCE_TITLES = {
    "invalid_request": "This cannot be done as asked",
    "not_found": "Something this page needs is gone",
    "busy": "The model has too much to do",
    "unavailable": "The model is not available",
    "engine_fault": "The model stumbled",
}


def request_id(request: HttpRequest) -> str:
    return getattr(request, "id", "-")


def explain(request: HttpRequest, explanation: Explanation) -> HttpResponse:
    """The error as JSON for programs, as a page for people; below /v1/ as OpenAI's clients expect it."""
    if request.path.startswith(openai.PATH):
        return openai.explained(explanation.status, explanation.code, explanation.what, explanation.why)
    metrics.errors.labels(explanation.code).inc()
    if wants_json(request):
        message = " ".join(filter(None, (f"{explanation.what}.", explanation.why, explanation.cure)))
        body = {"code": explanation.code, "message": message, "request_id": request_id(request)}
        return JsonResponse({"error": body}, status=explanation.status)
    layout = "base.html" if explanation.status < 500 and _signed_in(request) else "plain.html"
    context = {"error": asdict(explanation), "request_id": request_id(request), "layout": layout}
    template = {400: "400.html", 403: "403.html", 404: "404.html"}.get(explanation.status, "500.html")
    return render(request, template, context, status=explanation.status)


def _signed_in(request: HttpRequest) -> bool:
    """Asks the database, so not to be called for a 5xx page."""
    user = getattr(request, "user", None)
    return user is not None and user.is_authenticated


def wants_json(request: HttpRequest) -> bool:
    if request.path.startswith("/api/v1/"):
        return True
    accept = request.headers.get("Accept", "")
    return "application/json" in accept and "text/html" not in accept


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if isinstance(exception, RequestDataTooBig):
        return too_large(request)
    why = "The browser sent something this server does not accept."
    if isinstance(exception, SuspiciousOperation):
        why = "The address or the form it carried was malformed."
    return explain(
        request,
        Explanation(
            400, "bad_request", "This request was not understood", why, "Go back, reload the page and try again."
        ),
    )


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return explain(
        request,
        Explanation(
            403,
            "forbidden",
            "Your account may not do this",
            str(exception) or "It needs rights that your account does not have.",
            "Sign in with another account, or ask the person who runs this installation.",
        ),
    )


def too_many(request: HttpRequest) -> HttpResponse:
    response = explain(
        request,
        Explanation(
            429,
            "too_many_requests",
            "That was too often",
            "Forms that send mail or take passwords may only be sent a few times in a row.",
            "Wait some minutes, then try again.",
        ),
    )
    response["Retry-After"] = "60"
    return response


def signed_out(request: HttpRequest) -> HttpResponse:
    return explain(
        request,
        Explanation(
            401,
            "signed_out",
            "You are signed out",
            "This needs an account.",
            "Reload the page and sign in; nothing is lost.",
        ),
    )


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return explain(
        request,
        Explanation(
            403,
            "csrf",
            "This form is out of date",
            "It was opened before you signed in or out, or your browser blocks cookies for this address.",
            "Reload the page and send the form again.",
        ),
    )


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return explain(
        request,
        Explanation(
            404,
            "not_found",
            "There is nothing at this address",
            "The page may have been deleted, the link may be incomplete, or it belongs to another account.",
            "Check the address, or start from one of the lists.",
        ),
    )


def server_error(request: HttpRequest) -> HttpResponse:
    """For what nobody caught, be it in a view or, such as a database that is away, before one was reached."""
    error = sys.exc_info()[1]
    return known(request, error) or _unknown(request)


def known(request: HttpRequest, error: BaseException | None) -> HttpResponse | None:
    """The explanation of an error that we know, if this is one."""
    if isinstance(error, Denied):
        return denied(request, error)
    if isinstance(error, InferenceError):
        return inference_error(request, error)
    if is_disk_full(error):
        return disk_full(request)
    if isinstance(error, MailNotSent):
        return _away(request, "mail", "The mail server does not answer")
    if isinstance(error, OperationalError | InterfaceError):
        return _away(request, "database", "The database does not answer")
    if error is not None and type(error).__module__.startswith("redis."):
        return _away(request, "redis", "Redis does not answer")
    return None


def _away(request: HttpRequest, what: str, sentence: str) -> HttpResponse:
    why = "It is being restarted, or cannot be reached from here. What you saved before is safe."
    cure = "Try again in a moment; if it stays so, tell whoever runs this server."
    response = explain(request, Explanation(503, f"{what}_unavailable", sentence, why, cure))
    response["Retry-After"] = "3"
    return response


def _unknown(request: HttpRequest) -> HttpResponse:
    return explain(
        request,
        Explanation(
            500,
            "server_error",
            "Something broke on our side",
            "The request ended with an error that Steerboard does not know. What you saved before is safe.",
            "Try again; if it happens twice, look up the request id in the server's log.",
        ),
    )


def wrong_method(request: HttpRequest, allowed: str) -> HttpResponse:
    response = explain(
        request,
        Explanation(
            405,
            "method_not_allowed",
            "This address cannot be opened like this",
            f"It answers to {allowed}, which a button sends, and this was a {request.method}.",
            "Go back and use the button.",
        ),
    )
    response["Allow"] = allowed
    return response


def too_large(request: HttpRequest) -> HttpResponse:
    return explain(
        request,
        Explanation(
            413,
            "too_large",
            "This is too large to send",
            "A form may carry 2.5 MB and a file 20 MB.",
            "Split the file, or import it as a file instead of pasting it.",
        ),
    )


def inference_error(request: HttpRequest, error: InferenceError) -> HttpResponse:
    what = INFERENCE_TITLES.get(error.kind, "The model could not do this")
    response = explain(request, Explanation(HTTP_STATUS.get(error.kind, 500), error.code, what, error.message))
    if error.retry_after is not None:
        response["Retry-After"] = str(max(1, round(error.retry_after)))
    return response


def denied(request: HttpRequest, error: Denied) -> HttpResponse:
    what = {401: "You are not let in", 429: "You have reached a limit"}.get(error.status, "This is not yours to do")
    response = explain(request, Explanation(error.status, error.code, what, error.message))
    for name, value in error.headers.items():
        response[name] = value
    return response


def is_disk_full(error: BaseException | None) -> bool:
    """Whether this error, or one that caused it, is a file system without room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(error, sqlite3.OperationalError) and "disk is full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def disk_full(request: HttpRequest) -> HttpResponse:
    return explain(
        request,
        Explanation(
            507,
            "disk_full",
            "The disk is full",
            "The data folder has no room left, so nothing was saved. What was there before is intact.",
            "Free some space, then do the last step again.",
        ),
    )
