from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from inference.errors import InferenceError
from inference.types import ModelInfo, Wire
from steering.presets import library
from steering.presets.content import PresetContent
from steering.presets.forms import DescriptionForm, VersionForm
from steering.presets.models import Preset
from steering.presets.words import call_of, sampling_in_words, uses_in_words
from steering.refusals import parse_json
from steering.vectors.models import Vector
from steering.workers.choice import served


@dataclass(frozen=True)
class SaveRequest(Wire):
    """What the playground sends to keep a lane."""

    name: str
    version: str
    content: PresetContent
    description: str = ""
    shared: bool = False
    model: str = ""


@require_GET
def preset_list(request: HttpRequest) -> HttpResponse:
    """One line per preset, its newest version; the page of a version leads to the others."""
    rows = list(library.listed(request.user).prefetch_related("vectors"))
    groups = _newest_first(rows)
    context = {
        "own": [group for group in groups if group[0].owner_id == request.user.pk],
        "others": [group for group in groups if group[0].owner_id != request.user.pk],
        "model": served(request).model,
    }
    return render(request, "presets/list.html", context)


def _newest_first(rows: Iterable[Preset]) -> list[list[Preset]]:
    """The versions of each preset, newest first; presets in the order of their names."""
    groups: dict[tuple[Any, ...], list[Preset]] = {}
    for preset in sorted(rows, key=lambda preset: preset.order, reverse=True):
        groups.setdefault((preset.name, preset.model_id.lower(), preset.owner_id or 0), []).append(preset)
    return [groups[key] for key in sorted(groups)]


@require_GET
@never_cache
def library_json(request: HttpRequest) -> JsonResponse:
    """Every preset that the user may load into a lane, and what a lane must know of the vectors that they lend."""
    model = served(request).model
    rows = [p for group in _newest_first(library.listed(request.user)) for p in group]
    lent = Vector.objects.filter(presets__in=[p.pk for p in rows]).exclude(owner=None).exclude(owner=request.user.pk)
    return JsonResponse(
        {
            "presets": [_facts(preset, request.user, model) for preset in rows],
            "lent": [_lent(vector, model) for vector in lent.distinct()],
        }
    )


def _facts(preset: Preset, user: Any, model: ModelInfo) -> dict[str, Any]:
    return {
        "id": str(preset.pk),
        "name": preset.name,
        "version": preset.version,
        "description": preset.description,
        "model_id": preset.model_id,
        "usable": preset.usable_on(model),
        "mine": preset.owner_id == user.pk,
        "by": "" if preset.owner_id == user.pk else _by(preset),
        "content": preset.content,
    }


def _lent(vector: Vector, model: ModelInfo) -> dict[str, Any]:
    """Enough to draw its slider, and no word of what else is known about it."""
    hidden = {"tagline": "", "verdict": "", "slug": ""}
    return vector.playground_facts(usable=vector.usable_on(model)) | hidden


def _by(preset: Preset) -> str:
    return "Steerboard" if preset.owner is None else str(preset.owner)


@require_POST
def preset_save(request: HttpRequest) -> JsonResponse:
    """Keep a lane of the playground. Errors come as JSON with a sentence for the dialog."""
    wanted = SaveRequest.from_wire(parse_json(request.body))
    preset = library.save(
        request.user,
        name=wanted.name,
        version=wanted.version,
        model=served(request, wanted.model).model,
        content=wanted.content,
        description=wanted.description.strip(),
        shared=wanted.shared,
    )
    name = library.name_for(request.user, preset)
    return JsonResponse({"url": preset.get_absolute_url(), "model_name": name, "title": str(preset)}, status=201)


@require_GET
def preset_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    preset = _listed(request, pk)
    model = served(request).model
    name = library.name_for(request.user, preset)
    same = library.listed(request.user, preset.model_id).filter(owner=preset.owner_id, name=preset.name)
    context = {
        "preset": preset,
        "versions": sorted(same, key=lambda other: other.order, reverse=True),
        "uses": uses_in_words(preset, request.user),
        "content": preset.parsed,
        "sampling": sampling_in_words(preset),
        "model_name": name,
        "call": call_of(preset, name, request.build_absolute_uri("/v1")),
        "mine": preset.owner_id == request.user.pk,
        "usable": preset.usable_on(model),
        "model": model,
    }
    return render(request, "presets/detail.html", context)


@require_http_methods(["GET", "POST"])
def preset_edit(request: HttpRequest, pk: UUID) -> HttpResponse:
    preset = _own(request, pk)
    form = DescriptionForm(request.POST or None, instance=preset)
    if request.method == "POST" and form.is_valid():
        return redirect(form.save())
    return render(request, "presets/edit.html", {"preset": preset, "form": form})


@require_http_methods(["GET", "POST"])
def preset_version(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The same preset with other numbers, as a new version. The one that is there stays as it is."""
    preset = _own(request, pk)
    same = Preset.objects.owned_by(request.user).for_model(preset.model_id).filter(name=preset.name)
    form = VersionForm(preset, [other.version for other in same], request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            return redirect(_save_version(request, preset, form))
        except InferenceError as error:
            form.add_error("version" if error.code == "preset_exists" else None, error.message)
    pairs = list(zip(uses_in_words(preset, request.user), form.strengths(), strict=True))
    return render(request, "presets/version.html", {"preset": preset, "form": form, "uses": pairs})


def _save_version(request: HttpRequest, preset: Preset, form: VersionForm) -> Preset:
    return library.save(
        request.user,
        name=preset.name,
        version=form.cleaned_data["version"],
        model=ModelInfo("ready", preset.model_id),  # the one it was made on, whatever is served now
        content=form.content(),
        description=form.cleaned_data["description"].strip(),
        shared=preset.shared,
    )


@require_POST
def preset_share(request: HttpRequest, pk: UUID) -> HttpResponse:
    """shared=1 shares, anything else ends it at once, also for those who have it in a lane."""
    preset = _own(request, pk)
    try:
        library.share(preset, request.POST.get("shared") == "1")
    except InferenceError as error:
        messages.error(request, error.message)
        return redirect(preset)
    said = "Everyone here can use it now." if preset.shared else "From now on only you can use it."
    messages.success(request, f"{preset}: {said}")
    return redirect(preset)


@require_http_methods(["GET", "POST"])
def preset_delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    preset = _own(request, pk)
    if request.method == "GET":
        return render(request, "presets/delete.html", {"preset": preset})
    preset.delete()
    messages.success(request, f"{preset} was deleted.")
    return redirect("presets:list")


def _listed(request: HttpRequest, pk: UUID) -> Preset:
    return get_object_or_404(library.listed(request.user), pk=pk)


def _own(request: HttpRequest, pk: UUID) -> Preset:
    return get_object_or_404(Preset.objects.owned_by(request.user).select_related("owner"), pk=pk)
