"""The short way to /v1 for programs that bring a key: without sessions, cookies and forms, and without a thread.

Django runs each middleware of pages in the request's own thread, there and back, which takes longer than all that they
do. Those that matter to programs need neither the database nor a session, so here they run where the request is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from typing import Any

from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponseBase
from django.urls import set_script_prefix
from django.utils.module_loading import import_string

from steering.api.openai.errors import PATH

MIDDLEWARE = (  # those of settings.MIDDLEWARE that say something to a program, in the same order
    "webapp.middleware.RequestId",
    "webapp.middleware.SecurityHeaders",
    "webapp.cors.CrossOrigin",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "steering.audit.middleware.Acting",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "webapp.middleware.UploadLimit",
    "webapp.middleware.ExplainErrors",
)
KEY_HEADERS = {b"authorization", b"x-api-key"}

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


def brings_key(scope: Scope) -> bool:
    """Whether a request asks /v1 with a key, be it a good one: a session beside it says nothing then."""
    return scope["path"].startswith(PATH) and any(name.lower() in KEY_HEADERS for name, _ in scope["headers"])


class ProgramHandler(ASGIHandler):
    def load_middleware(self, is_async: bool = False) -> None:
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        handler = convert_exception_to_response(self._get_response_async)  # type: ignore[attr-defined]
        for name in reversed(MIDDLEWARE):
            middleware = _at_once(import_string(name))(handler)
            if hasattr(middleware, "process_exception"):
                self._exception_middleware.append(middleware.process_exception)
            handler = convert_exception_to_response(middleware)
        self._middleware_chain = handler

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        with closing(body):
            set_script_prefix(get_script_prefix(scope))
            request, refused = self.create_request(scope, body)
            if request is None:
                assert refused is not None
                await self.send_response(refused, send)
                return
            await self._answer_while_there(request, receive, send)

    async def _answer_while_there(self, request: HttpRequest, receive: Receive, send: Send) -> None:
        """A client that goes away ends the answer, which may still need a moment for its end."""
        answering = asyncio.create_task(self._answer(request, send))
        leaving = asyncio.create_task(self.listen_for_disconnect(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (leaving, answering):
                task.cancel()  # harmless to one that is done
        ends = await asyncio.gather(leaving, answering, return_exceptions=True)
        for error in ends:
            if isinstance(error, Exception) and not isinstance(error, RequestAborted):
                raise error

    async def _answer(self, request: HttpRequest, send: Send) -> None:
        response = await self.run_get_response(request)
        try:
            await self.send_response(response, send)
        finally:
            response.close()


def _at_once(middleware: Any) -> Any:
    """The same middleware, called where the request is."""

    async def call(self: Any, request: HttpRequest) -> HttpResponseBase:
        early = self.process_request(request) if hasattr(self, "process_request") else None
        response: HttpResponseBase = early or await self.get_response(request)
        return self.process_response(request, response) if hasattr(self, "process_response") else response

    return type(middleware.__name__, (middleware,), {"__acall__": call})
