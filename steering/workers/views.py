from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from inference.errors import InferenceError
from inference.types import WorkerInfo
from steering import gateway
from steering.accounts import totp
from steering.returning import page_before
from steering.workers.choice import choose
from steering.workers.control import DONE, worker_ask

MAX_NAME = 300


@require_GET
@never_cache
def worker_list(request: HttpRequest) -> HttpResponse:
    """The workers, with what an administrator may do about each."""
    _require_staff(request)
    return render(request, "workers/list.html", _workers())


@require_GET
@never_cache
def worker_table(request: HttpRequest) -> HttpResponse:
    """The table alone, which the page fetches again and again."""
    _require_staff(request)
    return render(request, "workers/table.html", _workers())


@require_POST
def worker_control(request: HttpRequest, worker_id: str, command: str) -> HttpResponse:
    _require_staff(request)
    if command not in DONE:
        raise Http404
    model = request.POST.get("model", "") if command == "load" else ""
    label = dict(_offered(settings.STEERBOARD_MODELS)).get(model, model)
    try:
        messages.success(request, worker_ask(worker_id, command, model, label))
    except InferenceError as error:
        messages.error(request, f"{error.message} ({error.code})")
    return redirect("workers:list")


@require_POST
def model_choose(request: HttpRequest) -> HttpResponse:
    """Work with another of the served models from now on."""
    choose(request, request.POST.get("model", "")[:MAX_NAME])
    return redirect(page_before(request, "/"))


def _require_staff(request: HttpRequest) -> None:
    if not getattr(request.user, "is_staff", False):
        raise Http404
    if totp.missing(request.user):
        raise totp.SecondStepNeeded


def _workers() -> dict[str, Any]:
    try:
        found: tuple[WorkerInfo, ...] = gateway.call(gateway.inference().workers(), 5)
    except InferenceError as error:
        return {"workers": (), "trouble": error}
    return {"workers": found, "trouble": None, "models": _offered(settings.STEERBOARD_MODELS)}


def _offered(names: list[str]) -> list[tuple[str, str]]:
    """What can be loaded, each with how it is shown: of a path its last part, where that says which one it is."""
    short = [name.rstrip("/").rpartition("/")[2] if name.startswith(("/", ".")) else name for name in names]
    return [(name, label if short.count(label) == 1 else name) for name, label in zip(names, short, strict=True)]
