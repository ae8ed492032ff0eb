"""The playground's pages and the few actions that are plain HTTP: rename, delete, and a stop that needs no socket."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from inference.errors import InvalidRequest
from inference.types import FeatureRef
from steering import gateway
from steering.behaviors import library as behaviors
from steering.behaviors.watching import name_for
from steering.datasets.models import Dataset
from steering.naming import id_in
from steering.playground import pages, runner
from steering.playground.library import run_delete, run_rename
from steering.playground.models import Run
from steering.playground.starters import starters
from steering.presets import library
from steering.vectors.models import Vector
from steering.workers.choice import served

RUNS_PER_PAGE = 30

FEATURES = {"feature": 1, "against": -1}  # how a link names features to steer with, and with which sign


@require_GET
def welcome(request: HttpRequest) -> HttpResponse:
    """The guided path: pick a direction, run it, move its strength."""
    found = served(request)
    model = found.model
    offers = starters(model)
    page = pages.new_page(found, None, None, "") | {"starters": [offer.to_page() for offer in offers]}
    context = {
        "page": page,
        "starters": offers,
        "model": model,
        "vectors": Vector.objects.visible_to(request.user).count(),
        "datasets": Dataset.objects.visible_to(request.user).count(),
    }
    return render(request, "playground/welcome.html", context)


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    """An empty playground. ?prompt= is a draft.

    ?vector= puts a vector into lane C, ?preset= a preset into lane B, ?behavior= a behavior there,
    ?feature=<source>/<index> a feature and ?against= one with the sign turned, each as often as there are features;
    ?from= takes the lanes of a run.
    """
    if "preset" in request.GET:
        return _with_preset(request)
    if "behavior" in request.GET:
        return _with_behavior(request)
    if FEATURES.keys() & request.GET.keys():
        return _with_feature(request)
    like = _named(Run.objects.owned_by(request.user), request.GET.get("from"))
    vector = _named(Vector.objects.visible_to(request.user), request.GET.get("vector"))
    found = served(request, like.settings.get("model", "") if like else vector.model_id if vector else "")
    if vector is None and "vector" not in request.GET:
        vector = next((offer.vector for offer in starters(found.model) if offer.usable), None)
    page = pages.new_page(found, vector, like, request.GET.get("prompt", ""))
    return render(request, "playground/playground.html", {"page": page, "run": None})


def _with_preset(request: HttpRequest) -> HttpResponse:
    preset = _named(library.listed(request.user), request.GET["preset"] or "-")
    page = pages.preset_page(served(request, preset.model_id), preset, request.GET.get("prompt", ""))
    return render(request, "playground/playground.html", {"page": page, "run": None})


def _with_feature(request: HttpRequest) -> HttpResponse:
    asked = [(_ref(text), sign) for name, sign in FEATURES.items() for text in request.GET.getlist(name)]
    found = served(request)
    page = pages.feature_page(found, asked, request.GET.get("prompt", ""))
    return render(request, "playground/playground.html", {"page": page, "run": None})


def _with_behavior(request: HttpRequest) -> HttpResponse:
    behavior = _named(behaviors.listed(request.user), request.GET["behavior"] or "-")
    found, name = served(request, behavior.model_id), name_for(request.user, behavior)
    page = pages.behavior_page(found, behavior, name, request.GET.get("prompt", ""))
    return render(request, "playground/playground.html", {"page": page, "run": None})


def _ref(text: str) -> FeatureRef:
    source, _, index = text.rpartition("/")
    if not source or not (index.isascii() and index.isdecimal()) or len(index) > 9:
        raise InvalidRequest("bad_feature", "This names no feature. Write ?feature=<source>/<index>, as its page does.")
    return FeatureRef(source, int(index))


@require_GET
def run(request: HttpRequest, pk: UUID) -> HttpResponse:
    found = get_object_or_404(Run.objects.owned_by(request.user), pk=pk)
    page = pages.run_page(served(request, found.settings.get("model", "")), found)
    return render(request, "playground/playground.html", {"page": page, "run": found})


@require_GET
def runs(request: HttpRequest) -> HttpResponse:
    words = request.GET.get("q", "").strip()
    own = Run.objects.owned_by(request.user)
    found = own.matching(words)
    page = Paginator(found, RUNS_PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "playground/runs.html", {"page": page, "words": words, "any": own.exists()})


@require_POST
def rename(request: HttpRequest, pk: UUID) -> JsonResponse:
    found = get_object_or_404(Run.objects.owned_by(request.user), pk=pk)
    try:
        return JsonResponse({"title": run_rename(found, request.POST.get("title", "")).title})
    except InvalidRequest as error:
        return JsonResponse({"message": error.message}, status=400)


@require_POST
def stop(request: HttpRequest, pk: UUID) -> JsonResponse:
    """Stop a run over plain HTTP, for a page whose socket is down."""
    found = get_object_or_404(Run.objects.owned_by(request.user), pk=pk)
    gateway.call(runner.run_stop(request.user, found.pk, request.POST.get("lane") or None))
    return JsonResponse({"stopped": True})


@require_POST
def delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    found = get_object_or_404(Run.objects.owned_by(request.user), pk=pk)
    run_delete(request.user, found)
    messages.success(request, f"“{found.title}” was deleted.")
    return redirect("playground:runs")


def _named(queryset, text: str | None):  # type: ignore[no-untyped-def]
    """The row a query parameter names. Raises Http404 for one that is not there or not theirs."""
    if not text:
        return None
    return get_object_or_404(queryset, pk=id_in(text))
