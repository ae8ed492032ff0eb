"""What every response gets: a request id, security headers, and an explanation where something failed."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from inference.logs import cause
from webapp import access, errors
from webapp.cors import APIS


class RequestId(MiddlewareMixin):
    """Names each request, for the log lines it causes, its response header and the error page."""

    def process_request(self, request: HttpRequest) -> None:
        visit = access.visit_of(request)
        request.id = visit.id if visit else f"req_{secrets.token_hex(6)}"  # type: ignore[attr-defined]
        cause.set(request.id)  # type: ignore[attr-defined]

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        access.learn(request)
        response["X-Request-ID"] = errors.request_id(request)
        return response


class SecurityHeaders(MiddlewareMixin):
    """What browsers may do with our answers: see `settings.SECURITY_HEADERS`, and `webapp.csp` for the reports."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if request.path.startswith(APIS):
            response.cookies.clear()  # programs have keys; a cookie there could only leak
        for name, value in settings.SECURITY_HEADERS.items():
            response.setdefault(name, value)
        if (
            request.is_secure()
        ):  # only then do browsers take the newer way to report; they ignore the older one beside it
            response.setdefault("Reporting-Endpoints", f'csp="{settings.CSP_REPORT_PATH}"')
            policy = response["Content-Security-Policy"]
            if "report-to" not in policy:
                response["Content-Security-Policy"] = f"{policy}; report-to csp"
        return response


class RequireSignIn(LoginRequiredMiddleware):
    """Every page needs an account unless its view says otherwise. Programs get a 401, people the sign-in page."""

    def handle_no_permission(self, request: HttpRequest, view_func: Callable[..., HttpResponseBase]) -> Any:
        if errors.wants_json(request):
            return errors.signed_out(request)
        return super().handle_no_permission(request, view_func)


class UploadLimit(MiddlewareMixin):
    """Refuses a body that is too large before any of it is read."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        length = request.META.get("CONTENT_LENGTH") or "0"
        if length.isdigit() and int(length) > settings.MAX_UPLOAD_BYTES + settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            return errors.too_large(request)
        return None


class ExplainErrors(MiddlewareMixin):
    """Turns the errors we know into a page, or JSON, that says what happened, why, and what to do."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        explained = response.headers.get("Content-Type", "").startswith("application/json")
        unexplained = response.status_code == 405 and not explained
        return errors.wrong_method(request, response["Allow"]) if unexplained else response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return errors.known(request, exception)
