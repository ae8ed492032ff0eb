"""Pages of behaviors: the list, making one, one behavior, its versions. Strangers get a 404 for what is not theirs."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from inference.errors import InferenceError
from inference.types import ModelInfo
from steering.behaviors import alerts, fitting, library, reading
from steering.behaviors.chart import across, down, roc_of
from steering.behaviors.choosing import FITTED, corrector_of
from steering.behaviors.corrector import Corrector
from steering.behaviors.forms import KEPT, CorrectionForm, DescriptionForm, FitForm, VersionForm
from steering.behaviors.models import Behavior
from steering.behaviors.monitoring import figures
from steering.behaviors.watching import name_for
from steering.behaviors.words import action_in_words, uses_in_words
from steering.datasets.forms import SourceForm
from steering.datasets.importing import read_import
from steering.datasets.library import dataset_create
from steering.datasets.limits import BadText
from steering.datasets.models import Dataset
from steering.datasets.typed import TypedRow, pair_of, typed_rows
from steering.jobs.models import Job
from steering.refusals import need
from steering.vectors.models import Vector
from steering.workers.choice import served

BLANK_ROWS = 8
LATELY = 7  # days of figures in lists


# ---- the list ----


@require_GET
def behavior_list(request: HttpRequest) -> HttpResponse:
    """One line per behavior, its newest version; the page of a version leads to the others."""
    groups = [_line(group, request.user) for group in _newest_first(library.listed(request.user))]
    context = {
        "own": [line for line in groups if line["behavior"].owner_id == request.user.pk],
        "others": [line for line in groups if line["behavior"].owner_id != request.user.pk],
        "fitting": Job.objects.owned_by(request.user).active().filter(kind=fitting.KIND),
        "alerts": alerts.unseen(request.user),
        "model": served(request).model,
    }
    return render(request, "behaviors/list.html", context)


def _line(versions: list[Behavior], user: Any) -> dict[str, Any]:
    behavior = versions[0]
    return {
        "behavior": behavior,
        "versions": versions,
        "does": action_in_words(behavior.corrects),
        "seen": figures(user, behavior, LATELY).total,
    }


def _newest_first(rows: Iterable[Behavior]) -> list[list[Behavior]]:
    groups: dict[tuple[Any, ...], list[Behavior]] = {}
    for behavior in sorted(rows, key=lambda behavior: behavior.order, reverse=True):
        groups.setdefault((behavior.name, behavior.model_id.lower(), behavior.owner_id or 0), []).append(behavior)
    return [groups[key] for key in sorted(groups)]


@require_GET
@never_cache
def library_json(request: HttpRequest) -> JsonResponse:
    """Every behavior that the user may choose in a lane, the newest version of each first."""
    model = served(request).model
    rows = [b for group in _newest_first(library.listed(request.user)) for b in group]
    return JsonResponse({"behaviors": [_facts(behavior, request.user, model) for behavior in rows]})


def _facts(behavior: Behavior, user: Any, model: ModelInfo) -> dict[str, Any]:
    return {
        "id": str(behavior.pk),
        "name": name_for(user, behavior),
        "full_name": behavior.full_name,
        "title": str(behavior),
        "description": behavior.description,
        "direction": behavior.direction,
        "action": behavior.corrects.action,
        "does": action_in_words(behavior.corrects),
        "threshold": behavior.threshold,
        "auroc": behavior.read.auroc,
        "layer": behavior.read.layer,
        "mine": behavior.owner_id == user.pk,
        "usable": behavior.usable_on(model),
        "url": behavior.get_absolute_url(),
    }


# ---- making one ----


@require_http_methods(["GET", "POST"])
@never_cache
def behavior_new(request: HttpRequest) -> HttpResponse:
    bound = request.POST if request.method == "POST" else None
    found = served(request, (bound or request.GET).get("model", ""))
    initial = FitForm.DEFAULTS | request.GET.dict()
    if not found.model.has_chat_template and found.model.id:
        initial["chat"] = False
    form = FitForm(bound, user=request.user, model=found.model, initial=initial)
    pairs = _Pairs(request)
    if bound is not None and form.is_valid() and pairs.readable(form):
        try:
            dataset = pairs.dataset(form)
            job = fitting.behavior_fit(owner=request.user, dataset=dataset, settings=form.settings(), model=found.model)
            return redirect("behaviors:fitting", job.pk)
        except InferenceError as error:
            form.add_error(None, error.message)
    datasets = Dataset.objects.visible_to(request.user).with_counts()
    context = {
        "form": form,
        "features_text": _features_text(form),
        "how": form["how"].value(),
        "datasets": datasets,
        "rows": pairs.rows + [TypedRow()] * (BLANK_ROWS if not pairs.rows else 1),
        "bad_rows": sum(bool(row.problem) for row in pairs.rows),
        "models": found.models,
        "model": found.model,
    }
    return render(request, "behaviors/new.html", context)


class _Pairs:
    """The pairs of the form, wherever they come from. Typed and uploaded ones become a dataset once all is well."""

    def __init__(self, request: HttpRequest):
        self.request = request
        self.how = request.POST.get("how", "")
        self.rows = typed_rows(request.POST) if self.how == "type" else []
        self.uploaded: Any = None

    def readable(self, form: FitForm) -> bool:
        if self.how == "type":
            if not self.rows:
                form.add_error(None, "There are no pairs yet: type some, or choose a dataset.")
            elif bad := sum(bool(row.problem) for row in self.rows):
                form.add_error(None, f"{bad} of the pairs need a look; they are marked below.")
        elif self.how == "upload":
            self._read_file(form)
        return form.is_valid()

    def _read_file(self, form: FitForm) -> None:
        source = SourceForm(self.request.POST, self.request.FILES, how="upload")
        try:
            if not source.is_valid():
                raise BadText(" ".join(map(str, source.non_field_errors())))
            found = read_import(source.cleaned_data["text"], source.cleaned_data["source"], {})
            if found.missing or not found.read.rows:
                raise BadText("No pair was recognised in this file. Use the names prompt, positive and negative.")
            if found.read.problems:
                first = found.read.problems[0]
                raise BadText(f"Line {first.line} {first.title}. Mend it, or import the file as a dataset first.")
            self.uploaded = found
        except BadText as error:
            form.add_error(None, str(error))

    def dataset(self, form: FitForm) -> Dataset:
        if self.how == "dataset":
            chosen: Dataset = form.cleaned_data["dataset"]
            return chosen
        rows = [pair_of(row) for row in self.rows] if self.how == "type" else self.uploaded.read.rows
        fitting.check_settings(form.settings(), len(rows))  # before anything is kept
        return dataset_create(
            owner=self.request.user,
            name=f"Pairs of {form.cleaned_data['name']}",
            description=form.cleaned_data["description"][:2000],
            rows=rows,
            kind=self.uploaded.kind if self.uploaded else Dataset.Kind.PAIRS,
        )


@require_GET
@never_cache
def behavior_fitting(request: HttpRequest, pk: UUID) -> HttpResponse:
    """How a fit is doing; leads to the behavior once it is there."""
    job = get_object_or_404(Job.objects.owned_by(request.user).filter(kind=fitting.KIND), pk=pk)
    if job.state == Job.State.SUCCEEDED:
        return redirect(job.result_url)
    settings = fitting.settings_of(job)
    context = {"job": job, "settings": settings, "again": _again(job, settings)}
    return render(request, "behaviors/fitting.html", context)


def _again(job: Job, settings: fitting.FitSettings) -> str:
    """The page of the form, filled in as for this fit."""
    correction = settings.correction
    asked = {
        "dataset": job.request["dataset"],
        "name": settings.name,
        "description": settings.description,
        "direction": settings.direction,
        "on": settings.on,
        "source": settings.source,
        "layers": ", ".join(map(str, settings.layers)),
        "max_features": settings.max_features,
        "false_positive_rate": f"{settings.false_positive_rate * 100:g}",
        "chat": "on" if settings.chat else "",
        "action": correction.action,
        "steer_with": correction.steer_with,
        "strength": "" if correction.strength is None else f"{correction.strength:g}",
        "features": ", ".join(f"{ref.source}/{ref.index}" for ref in correction.features),
        "operation": correction.operation,
        "dose": correction.dose,
        "span": correction.span,
        "attempts": correction.attempts,
    }
    return f"{reverse('behaviors:new')}?{urlencode(asked)}"


# ---- one behavior ----


@require_GET
@never_cache
def behavior_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    behavior = _listed(request, pk)
    detector = behavior.read
    versions = library.versions_of(request.user, behavior)
    own = [other.version for other in versions]
    name = name_for(request.user, behavior)
    model = served(request).model
    context = {
        "behavior": behavior,
        "detector": detector,
        "rates": detector.at(behavior.threshold),
        "roc": roc_of(detector, behavior.threshold),
        "points": _points(behavior),
        "layers": detector.facts.get("layers") or [],
        "does": action_in_words(behavior.corrects),
        "uses": uses_in_words(behavior, request.user),
        "versions": versions,
        "next_version": library.next_version(own),
        "mine": behavior.owner_id == request.user.pk,
        "usable": behavior.usable_on(model),
        "model": model,
        "call_name": name,
        "call": _call(request, behavior, name),
        "seen": figures(request.user, behavior, LATELY).total,
        "alerts": [a for a in alerts.unseen(request.user) if a.behavior_id == behavior.pk],
    }
    return render(request, "behaviors/detail.html", context)


def _points(behavior: Behavior) -> dict[str, Any]:
    """What the slider needs: the rates at every threshold, from the strictest on, and where they lie in the plot."""
    return {
        "threshold": behavior.threshold,
        "points": [
            {
                "threshold": rates.threshold,
                "x": across(rates.false_positive_rate.estimate),
                "y": down(rates.recall.estimate),
                "fpr": dataclasses.astuple(rates.false_positive_rate),
                "recall": dataclasses.astuple(rates.recall),
                "precision": dataclasses.astuple(rates.precision) if rates.precision else None,
            }
            for rates in behavior.read.thresholds
        ],
    }


def _call(request: HttpRequest, behavior: Behavior, name: str) -> str:
    """The request that watches for it, for a shell."""
    body = {
        "model": behavior.model_id.lower(),
        "messages": [{"role": "user", "content": "Hello"}],
        "behavior_names": [name],
        "auto_correct": True,
    }
    address = request.build_absolute_uri("/v1/chat/completions")
    key, kind = '"Authorization: Bearer $STEERBOARD_API_KEY"', '"Content-Type: application/json"'
    return f"curl {address} \\\n  -H {key} \\\n  -H {kind} \\\n  -d {shlex.quote(json.dumps(body, indent=2))}"


@require_http_methods(["GET", "POST"])
def behavior_edit(request: HttpRequest, pk: UUID) -> HttpResponse:
    behavior = _own(request, pk)
    form = DescriptionForm(request.POST or None, instance=behavior)
    if request.method == "POST" and form.is_valid():
        return redirect(form.save())
    return render(request, "behaviors/edit.html", {"behavior": behavior, "form": form})


@require_http_methods(["GET", "POST"])
@never_cache
def behavior_version(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The same detector with another threshold or correction, as a new version. The one that is there stays."""
    behavior = _own(request, pk)
    same = Behavior.objects.owned_by(request.user).for_model(behavior.model_id).filter(name=behavior.name)
    bound = request.POST if request.method == "POST" else None
    given = {name: request.GET[name] for name in ("threshold",) if name in request.GET}
    form = VersionForm(
        behavior, [b.version for b in same], bound, user=request.user, model=served(request).model, initial=given
    )
    if bound is not None and form.is_valid():
        try:
            return redirect(_save_version(behavior, form))
        except InferenceError as error:
            form.add_error("version" if error.code == "behavior_exists" else None, error.message)
    context = {
        "behavior": behavior,
        "form": form,
        "model": served(request).model,
        "uses": uses_in_words(behavior, request.user),
        "points": _points(behavior),
        "rates": behavior.read.at(behavior.threshold),
        "fitted": _fitted(behavior),
        "kept": KEPT,
        "features_text": _features_text(form),
    }
    return render(request, "behaviors/version.html", context)


def _features_text(form: CorrectionForm) -> str:
    return str(form["features"].value() or "")


def _save_version(behavior: Behavior, form: VersionForm) -> Behavior:
    data = form.cleaned_data
    return library.save_version(
        behavior,
        version=data["version"],
        threshold=data["threshold"],
        corrector=_new_corrector(behavior, form),
        description=data["description"].strip(),
    )


def _new_corrector(behavior: Behavior, form: CorrectionForm) -> Corrector:
    correction = form.correction()
    if correction.action != "steer" or correction.steer_with != KEPT:
        return corrector_of(behavior.owner, correction, _fitted(behavior), behavior.read.layer)
    uses = behavior.corrects.uses
    if correction.strength is not None and len(uses) == 1:
        uses = (dataclasses.replace(uses[0], strength=correction.strength),)
    need(bool(uses), "no_correction", "The version before steers with nothing. Choose what to steer with.")
    rest = corrector_of(behavior.owner, dataclasses.replace(correction, action="observe"), None, 0)
    return dataclasses.replace(rest, action="steer", uses=uses)


def _fitted(behavior: Behavior) -> Vector | None:
    pk = behavior.detector.get(FITTED) or behavior.detector.get("vector")
    return Vector.objects.filter(owner=behavior.owner, pk=pk).first() if pk else None


@require_POST
def behavior_share(request: HttpRequest, pk: UUID) -> HttpResponse:
    """shared=1 shares, anything else ends it at once, also for those who have it in a lane."""
    behavior = _own(request, pk)
    library.share(behavior, request.POST.get("shared") == "1")
    said = "Everyone here can use it now." if behavior.shared else "From now on only you can use it."
    messages.success(request, f"{behavior}: {said}")
    return redirect(behavior)


@require_http_methods(["GET", "POST"])
def behavior_delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    behavior = _own(request, pk)
    if request.method == "GET":
        return render(request, "behaviors/delete.html", {"behavior": behavior})
    library.delete(behavior)
    messages.success(request, f"{behavior} was deleted.")
    return redirect("behaviors:list")


# ---- trying it on a text ----


@require_POST
def behavior_read(request: HttpRequest, pk: UUID) -> JsonResponse:
    """Start reading a text. Errors come as JSON with a sentence."""
    behavior = _listed(request, pk)
    need(
        behavior.usable_on(served(request, behavior.model_id).model),
        "behavior_model_mismatch",
        f"This was fitted on {behavior.model_id}, which is not served now.",
    )
    job = reading.reading_start(
        owner=request.user,
        behavior=behavior,
        text=request.POST.get("text", "").replace("\r\n", "\n"),
        prompt=request.POST.get("prompt", "").replace("\r\n", "\n").strip(),
    )
    where = reverse("behaviors:reading", args=[behavior.pk, job.pk])
    return JsonResponse({"job": str(job.pk), "url": where}, status=202)


@require_GET
@never_cache
def behavior_reading(request: HttpRequest, pk: UUID, job: UUID) -> JsonResponse:
    """How the reading is doing, and what was read once it is there."""
    behavior = _listed(request, pk)
    found = get_object_or_404(reading.readings_of(request.user, behavior), pk=job)
    return JsonResponse(found.status() | {"read": reading.reading_of(found, behavior)})


def _listed(request: HttpRequest, pk: UUID) -> Behavior:
    return get_object_or_404(library.listed(request.user), pk=pk)


def _own(request: HttpRequest, pk: UUID) -> Behavior:
    return get_object_or_404(Behavior.objects.owned_by(request.user).select_related("owner"), pk=pk)
