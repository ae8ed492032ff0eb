"""What surrounds every page: navigation with counts, and the state of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.http import HttpRequest, JsonResponse
from django.urls import reverse
from django.utils.functional import SimpleLazyObject
from django.views.decorators.http import require_safe

from inference.types import ModelInfo
from steering.accounts.models import User
from steering.workers.choice import served
from webapp.errors import request_id


@dataclass(frozen=True)
class Place:
    """A line of the navigation. `keys` is the shortcut that goes there; `model` is what the line counts."""

    title: str
    view: str
    icon: str
    keys: str = ""
    model: str = ""


NAVIGATION = {
    "Steer": (
        Place("Playground", "playground:home", "i-lanes", "g p"),
        Place("Vectors", "vectors:list", "i-vector", "g v", "vectors.Vector"),
        Place("Presets", "presets:list", "i-save", "g e", "presets.Preset"),
        Place("Datasets", "datasets:list", "i-data", "g d", "datasets.Dataset"),
        Place("Experiments", "experiments:list", "i-flask", "g x", "experiments.Experiment"),
        Place("Human rating", "rating:list", "i-star", "g h", "rating.Study"),
    ),
    "Look inside": (
        Place("Features", "features:home", "i-feature", "g f"),
        Place("Attribution", "attribution:list", "i-attr", "g t", "attribution.Attribution"),
        Place("Documents", "retrieval:home", "i-book", "g q", "retrieval.Question"),
        Place("Behaviors", "behaviors:list", "i-shield", "g b", "behaviors.Behavior"),
    ),
    "Serve": (
        Place("Policies", "policies:list", "i-policy", "g o", "policies.StoredPolicy"),
        Place("Keys & usage", "access:keys", "i-key", "g k"),
        Place("API docs", "api-docs", "i-code", "g a"),
    ),
    "System": (Place("Jobs", "jobs:list", "i-job", "g j"),),
}
VERSION = "0.1.0"
STAFF_ONLY = (Place("Models", "workers:list", "i-cpu", "g m"), Place("Admin", "admin:index", "i-gear"))


def frame(request: HttpRequest) -> dict[str, Any]:
    """Context processor. Lazy: a response that draws no frame asks the database and the model nothing."""
    return {
        "navigation": SimpleLazyObject(lambda: _navigation(request)),
        "served": SimpleLazyObject(lambda: _status(request)),
        "request_id": request_id(request),
        "version": VERSION,
    }


@require_safe
def status(request: HttpRequest) -> JsonResponse:
    """The model and its load, for the top bar, which asks every few seconds."""
    return JsonResponse(_status(request), headers={"Cache-Control": "no-store"})


def _navigation(request: HttpRequest) -> list[dict[str, Any]]:
    if not isinstance(request.user, User):
        return []
    sections = dict(NAVIGATION)
    if request.user.is_staff:
        sections["System"] += STAFF_ONLY
    return [{"title": title, "places": [_place(p, request) for p in ps]} for title, ps in sections.items()]


def _place(place: Place, request: HttpRequest) -> dict[str, Any]:
    url = reverse(place.view)
    count = apps.get_model(place.model).objects.visible_to(request.user).count() if place.model else None
    return {
        "title": place.title,
        "url": url,
        "icon": place.icon,
        "keys": place.keys,
        "count": count,
        "here": request.path.startswith(url),
    }


def _status(request: HttpRequest) -> dict[str, Any]:
    """Of the model that is chosen; `models` has all of them where there are several."""
    found = served(request)
    info = found.model
    others = [{"id": other.id, "name": short_name(other), "facts": facts(other)} for other in found.models]
    return {"model": info.to_wire(), "name": short_name(info), "facts": facts(info), "models": others, **_worker(info)}


def short_name(info: ModelInfo) -> str:
    return info.id.rstrip("/").rpartition("/")[2] or "Model"


def facts(info: ModelInfo) -> str:
    if not info.n_layers:
        return ""
    return f"{info.n_layers} layers · {info.d_model} wide · {info.dtype} · {info.device.upper()}"


def _worker(info: ModelInfo) -> dict[str, str]:
    if info.state == "loading":
        return {"dot": "busy", "state": "Loading", "detail": "about 20 s the first time"}
    if info.state == "failed":
        return {"dot": "down", "state": "Not available", "detail": info.problem}
    if info.rows:
        rate = f" · {info.tokens_per_second:.0f} tok/s" if info.tokens_per_second else ""
        rows = "1 row" if info.rows == 1 else f"{info.rows} rows"
        return {"dot": "busy", "state": "Writing", "detail": f"{rows}{rate} · queue {info.waiting}"}
    return {"dot": "ok", "state": "Ready", "detail": f"idle · queue {info.waiting}"}
