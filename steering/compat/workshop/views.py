"""`/workshop/`: three calls for programs, and a page for a talk in front of people."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt, ensure_csrf_cookie
from django.views.decorators.http import require_GET

from inference.errors import InferenceError
from steering import gateway
from steering.access.denied import Denied
from steering.access.principal import Principal, principal_of
from steering.accounts.models import User
from steering.api.openai.body import Fields, parse_json
from steering.compat.answering import events
from steering.compat.refusing import explained, wrong_method
from steering.compat.workshop.asking import LANES, MOST_STRENGTH, parse, pieces, texts
from steering.compat.workshop.personas import PERSONAS, find
from steering.threads import in_thread

View = Callable[[HttpRequest, Principal], Awaitable[Any]]


def operation(method: str) -> Callable[[View], Any]:
    """What the view returns, as JSON; what it raises, as `{"error": sentence}` with its status."""

    def around(view: View) -> Any:
        async def answered(request: HttpRequest) -> HttpResponseBase:
            try:
                if request.method != method:
                    raise wrong_method(request, method)
                answer = await view(request, await in_thread(caller)(request))
            except Exception as error:
                status, sentence, headers = explained(error)
                return JsonResponse({"error": sentence}, status=status, headers=headers)
            return answer if isinstance(answer, HttpResponseBase) else JsonResponse(answer)

        return login_not_required(csrf_exempt(answered))

    return around


def caller(request: HttpRequest) -> Principal:
    """A key, a session with the page's token, or, while the workshop is open, anybody: they count as its host.

    Synchronous. Raises Denied.
    """
    known = request.user.is_authenticated or "Authorization" in request.headers or "X-API-Key" in request.headers
    host = None if known else _host()
    if host is None:
        who = principal_of(request)
        who.require("generate")
        return who
    if request.method == "POST" and request.content_type != "application/json":  # no form of another site can
        raise Denied(415, "not_json", "Send JSON, with “Content-Type: application/json”.")
    return Principal(host)


def _host() -> User | None:
    """Whose limits guests use; None while the workshop is closed."""
    return User.objects.filter(email__iexact=settings.WORKSHOP_HOST, is_active=True).first()


# ---- calls ----


@operation("POST")
async def generate(request: HttpRequest, who: Principal) -> Any:
    """One text: the persona's, or the base's where none is named."""
    asked = await in_thread(parse)(_body(request), who)
    lane = "steered" if asked.who else "base"
    return {**asked.facts(), "text": (await texts(who, asked, (lane,)))[lane]}


@operation("POST")
async def compare(request: HttpRequest, who: Principal) -> Any:
    """Base and persona with one seed, side by side; with `stream` as events, piece by piece."""
    body = _body(request)
    asked = await in_thread(parse)(body, who)
    lanes = LANES if asked.who else LANES[:1]
    if body.flag("stream"):
        return await events(_told(who, asked, lanes))
    return {**asked.facts(), **await texts(who, asked, lanes)}


async def _told(who: Principal, asked: Any, lanes: tuple[str, ...]) -> AsyncIterator[dict[str, Any]]:
    whole = dict.fromkeys(lanes, "")
    async for lane, piece in pieces(who, asked, lanes):
        whole[lane] += piece
        yield {"status": "progress", "lane": lane, "text": piece}
    yield {"status": "complete", "result": {**asked.facts(), **whole}}


@operation("GET")
async def examples(request: HttpRequest, who: Principal) -> Any:
    """Prompts to try each persona with."""
    return {
        "examples": [
            {"prompt": prompt, "steering": persona.key, "name": persona.name}
            for persona in PERSONAS
            for prompt in persona.prompts
        ]
    }


def _body(request: HttpRequest) -> Fields:
    return Fields(parse_json(request.body))


# ---- the page ----


@login_not_required
@require_GET
@ensure_csrf_cookie
def stage(request: HttpRequest) -> HttpResponseBase:
    if not request.user.is_authenticated and _host() is None:
        return redirect_to_login(request.get_full_path())
    try:
        model = gateway.model_info()
        found = [(persona, find(persona, model)) for persona in PERSONAS] if model.id else []
    except InferenceError:
        found = []
    shown = {
        "model": model if found else None,
        "personas": [{"persona": persona, "ready": ready} for persona, ready in found],
        "all": PERSONAS,
        "strength": settings.WORKSHOP_STRENGTH,
        "most": MOST_STRENGTH,
    }
    return render(request, "workshop/stage.html", shown)
