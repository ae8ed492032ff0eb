"""The addresses below /v1. Plain asynchronous views: a synchronous one would hold a stream back until its end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from inference.errors import InferenceError
from steering.access.principal import Principal, principal_of
from steering.api.openai import catalog, chat, completions, policed, responses
from steering.api.openai.call import opened
from steering.api.openai.errors import ApiError, of_inference
from steering.api.openai.frames import STREAM_HEADERS
from steering.threads import in_turn

View = Callable[..., Awaitable[HttpResponseBase]]
API_VERSION = "2020-10-01"  # of OpenAI's API, as its own servers say it


def endpoint(method: str) -> Callable[[View], Any]:
    """Open to programs: a key stands for its owner, and a session needs the page's token (see `principal_of`)."""

    def around(view: View) -> Any:
        async def answered(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
            began = time.perf_counter()
            response = await _explained(view, method, request, kwargs)
            response["openai-processing-ms"] = str(round((time.perf_counter() - began) * 1000))
            response["openai-version"] = API_VERSION
            return response

        answered.__name__, answered.__doc__ = view.__name__, view.__doc__
        return login_not_required(csrf_exempt(answered))

    return around


async def _explained(view: View, method: str, request: HttpRequest, kwargs: dict[str, Any]) -> HttpResponseBase:
    try:
        if request.method != method:
            message = f"This address answers to {method}, and this was a {request.method}."
            raise ApiError(405, "method_not_allowed", message, headers={"Allow": method})
        return await view(request, **kwargs)
    except ApiError as error:
        return error.response()
    except InferenceError as error:
        return of_inference(error).response()
    except RequestDataTooBig:
        return ApiError(413, "request_too_large", "The body is larger than 2.5 MB. Send less at once.").response()


@endpoint("GET")
async def models(request: HttpRequest) -> HttpResponseBase:
    """Served models, and presets that can stand in a model's place."""
    return JsonResponse({"object": "list", "data": await _asked(request, catalog.entries)})


@endpoint("GET")
async def model(request: HttpRequest, name: str) -> HttpResponseBase:
    return JsonResponse(await _asked(request, lambda who: catalog.entry(who, name)))


@in_turn
def _asked(request: HttpRequest, ask: Callable[[Principal], Any]) -> Any:
    who = principal_of(request)
    who.require("generate")
    return ask(who)


@endpoint("POST")
async def chat_completions(request: HttpRequest) -> HttpResponseBase:
    return await _answer(request, chat)


@endpoint("POST")
async def text_completions(request: HttpRequest) -> HttpResponseBase:
    return await _answer(request, completions)


@endpoint("POST")
async def create_response(request: HttpRequest) -> HttpResponseBase:
    return await _answer(request, responses)


async def _answer(request: HttpRequest, form: ModuleType) -> HttpResponseBase:
    who, ask, call = await opened(request, form)
    if call is None:
        return await policed.answer(who, ask)
    streaming = False
    try:
        if not call.streamed:
            return JsonResponse(await call.whole(), headers=call.headers)
        await call.begin()
        streaming = True
        headers = call.headers | STREAM_HEADERS
        return StreamingHttpResponse(call.frames(), content_type="text/event-stream", headers=headers)
    finally:
        if not streaming:
            call.close()
