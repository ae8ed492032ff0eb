"""What drf-spectacular cannot know by itself: our ways to sign in, our strictness, our errors."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema

from steering.api.rest.shapes.fields import Error

ALWAYS = (401, 403, 429, 500, 503)
SAYS = {
    400: ("invalid_request", "name: A vector needs a name."),
    401: ("missing_key", "This needs an API key. Send it as “Authorization: Bearer sk-sb-…”."),
    403: ("missing_scope", "The key “laptop” may not do this: it lacks the scope “datasets”."),
    404: ("not_found", "There is no such thing here, or it is not yours. Check the id, or list what there is."),
    409: ("request_in_progress", "The first request with this Idempotency-Key is still being answered."),
    413: ("too_large", "A JSON body may have 2.5 MB. Send pairs in several requests, or import a file."),
    415: ("unsupported_media_type", "Unsupported media type \"text/plain\" in request."),
    422: ("idempotency_key_reused", "This Idempotency-Key was sent before with another request."),
    429: ("rate_limited", "The limit of your account is 60 requests a minute. Try again in 12s."),
    500: ("server_error", "Something broke on our side. Try again; the log has the rest under the request id."),
    503: ("redis_unavailable", "Redis cannot be reached. Nothing is lost; try again in a moment."),
}  # fmt: skip
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="Any text of up to 255 characters, new for every new request; a UUID will do. Sent again with the same "
    "request within a day it does nothing more and gives the same answer, with `Idempotency-Replayed: true`.",
)


SERVER_SENT_EVENT = {
    "type": "object",
    "description": "One event of the stream.",
    "properties": {
        "id": {"type": "string", "description": "Send it as Last-Event-ID to hear only what comes after it."},
        "event": {"type": "string", "description": "The type."},
        "data": {"type": "string", "contentMediaType": "application/json", "description": "A JSON object."},
    },
    "required": ["event", "data"],
}


def operation(
    id: str,
    summary: str,
    *,
    answers: Any,
    status: int = 200,
    says: str = "",
    tag: str = "",
    scope: str = "",
    query: Any = None,
    body: Any = None,
    once: bool = False,
    errors: tuple[int, ...] = (),
    example: Any = None,
    asks: Any = None,
    more: tuple[OpenApiParameter, ...] = (),
    also: dict[Any, Any] | None = None,
) -> Callable[[Any], Any]:
    """Describe a method of an Endpoint. `example` is of its answer, `asks` of its body, `also` has other answers."""
    found = {*ALWAYS, *errors}
    found |= {400} if query or body else set()
    found |= {413, 415} if body else set()
    found |= {400, 409, 422} if once else set()
    title = HTTPStatus(status).phrase
    file = any(isinstance(code, tuple) for code in also or ())  # then `also` says in which forms it comes
    shown = [OpenApiExample("An answer", example, response_only=True)] if example is not None else []
    asked = [OpenApiExample("A request", asks, request_only=True)] if asks is not None else []
    takes = f"Scope: `{scope}`." if scope else "Any key."
    return extend_schema(
        operation_id=id,
        summary=summary,
        description=f"{says} {takes}".strip(),
        tags=[tag or id.partition("_")[0]],
        parameters=[*([query] if query else []), *([IDEMPOTENCY_KEY] if once else []), *more],
        request=body,
        responses=({} if file else {status: OpenApiResponse(answers, description=title, examples=shown)})
        | (also or {})
        | {code: _failure(code) for code in sorted(found)},
        examples=asked,
    )


def _failure(status: int) -> OpenApiResponse:
    code, message = SAYS[status]
    body = {"error": {"code": code, "message": message, "request_id": "req_9f2c61b3a0de"}}
    example = OpenApiExample(code, body, response_only=True, status_codes=[str(status)])
    return OpenApiResponse(Error, description=HTTPStatus(status).phrase, examples=[example])


class Schema(AutoSchema):
    """Components without our suffix: Dataset, not DatasetShape."""

    def get_serializer_name(self, serializer: Any, direction: Any) -> str:
        return str(super().get_serializer_name(serializer, direction)).removesuffix("Shape")


class KeyOrSessionScheme(OpenApiAuthenticationExtension):
    target_class = "steering.api.rest.authentication.KeyOrSession"
    name = ["bearer", "apiKey", "session"]

    def get_security_requirement(self, auto_schema: Any) -> Any:
        return [{name: []} for name in self.name]  # any one of them

    def get_security_definition(self, auto_schema: Any) -> Any:
        from django.conf import settings

        return [
            {"type": "http", "scheme": "bearer", "description": "An API key: `Authorization: Bearer sk-sb-…`."},
            {
                "type": "apiKey",
                "in": "header",
                "name": "X-API-Key",
                "description": "An API key, in its own header.",
            },
            {
                "type": "apiKey",
                "in": "cookie",
                "name": settings.SESSION_COOKIE_NAME,
                "description": "The session of a signed-in browser. What changes something also sends X-CSRFToken.",
            },
        ]


class StrictScheme(OpenApiSerializerExtension):
    """A request refuses names that it does not know, and the document says so."""

    target_class = "steering.api.rest.shapes.fields.Strict"
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        if direction == "request" and schema.get("type") == "object":
            schema["additionalProperties"] = False
        return schema


REQUEST_ID = {
    "description": "Names this request in the server's log.",
    "schema": {"type": "string", "pattern": "^req_[0-9a-f]+$"},
}
RETRY_AFTER = {"description": "Seconds after which trying again can help.", "schema": {"type": "integer", "minimum": 1}}


def tidy(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Say once what many answers share: errors become components, every answer has its headers. A hook."""
    shared: dict[str, Any] = {}
    for path in result["paths"].values():
        for operation in path.values():
            answers = operation["responses"]
            for status, answer in answers.items():
                answer["headers"] = _headers(status)
                if status >= "400":
                    name = HTTPStatus(int(status)).phrase.replace(" ", "")
                    shared[name] = answer
                    answers[status] = {"$ref": f"#/components/responses/{name}"}
    result["components"]["responses"] = dict(sorted(shared.items()))
    _drop_marks(result)
    return result


def _headers(status: str) -> dict[str, Any]:
    late = {"Retry-After": RETRY_AFTER} if status in ("409", "429", "503") else {}
    return {"X-Request-ID": REQUEST_ID} | late


def _drop_marks(node: Any) -> None:
    """Without what drf-spectacular leaves for a hook that is not used here."""
    if isinstance(node, dict):
        node.pop("x-spec-enum-id", None)
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _drop_marks(inner)
