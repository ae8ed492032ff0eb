"""Other sites' scripts may call the APIs where CORS_ORIGINS names them; nothing else, and never with cookies."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import patch_vary_headers
from django.utils.deprecation import MiddlewareMixin

APIS = ("/v1/", "/api/v1/")  # not /api/docs/, which is a page
METHODS = "GET, POST, PUT, PATCH, DELETE"
ASKS = "Authorization, Content-Type, Idempotency-Key, X-API-Key, X-Request-ID"
TELLS = (
    "X-Request-ID, Retry-After, X-RateLimit-Limit-Requests, X-RateLimit-Remaining-Requests, "
    "X-RateLimit-Reset-Requests, X-RateLimit-Limit-Tokens, X-RateLimit-Remaining-Tokens, X-RateLimit-Reset-Tokens"
)
PREFLIGHT_SECONDS = 600


class CrossOrigin(MiddlewareMixin):
    """Answers preflights, which carry no key, and marks the answers that a listed origin may read."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        return HttpResponse(status=204) if preflight and is_allowed(request) else None

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if not settings.CORS_ORIGINS or not request.path.startswith(APIS):
            return response
        patch_vary_headers(response, ["Origin"])
        if is_allowed(request):
            response["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response["Access-Control-Expose-Headers"] = TELLS
            response["Cross-Origin-Resource-Policy"] = "cross-origin"
            if request.method == "OPTIONS":
                response["Access-Control-Allow-Methods"] = METHODS
                response["Access-Control-Allow-Headers"] = ASKS
                response["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
        return response


def is_allowed(request: HttpRequest) -> bool:
    return request.path.startswith(APIS) and request.headers.get("Origin", "") in settings.CORS_ORIGINS
