from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from steering.datasets.lint import lint
from steering.datasets.models import Dataset
from steering.jobs.curves import loss_name
from steering.jobs.models import Job
from steering.vectors import builds, library, training
from steering.vectors.elsewhere import snippets_of
from steering.vectors.evaluation import Evaluation
from steering.vectors.exports import again_url, exports_of, recommended
from steering.vectors.forms import BuildForm, RenameForm
from steering.vectors.methods import methods, name_of
from steering.vectors.models import Vector
from steering.workers.choice import served

PAGE = 50
COMMON = ("mean_difference", "caa")  # shown at once; the others are one click away
DOUBTS = ("equal_sides", "duplicate", "few_pairs", "label_leak")  # findings worth a word while a vector is built


@require_GET
def vector_list(request: HttpRequest) -> HttpResponse:
    query = request.GET.get("q", "").strip()
    visible = Vector.objects.visible_to(request.user).select_related("dataset").in_library_order()
    page = Paginator(visible.filter(name__icontains=query), PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "model": served(request).model,
        "query": query,
        "any": visible.exists(),
        "own": visible.exclude(owner=None).exists(),
        "building": Job.objects.owned_by(request.user).active().filter(kind__in=builds.KINDS),
    }
    return render(request, "vectors/list.html", context)


@require_GET
@never_cache
def library_json(request: HttpRequest) -> JsonResponse:
    """Every vector the user sees, with what the playground needs to offer it."""
    model = served(request).model
    vectors = Vector.objects.visible_to(request.user).in_library_order()
    return JsonResponse({"vectors": [v.playground_facts(usable=v.usable_on(model)) for v in vectors]})


@require_http_methods(["GET", "POST"])
def vector_build(request: HttpRequest) -> HttpResponse:
    bound = request.POST if request.method == "POST" else None
    found = served(request, (bound or request.GET).get("model", ""))
    model = found.model
    form = BuildForm(bound, user=request.user, model=model, initial=BuildForm.DEFAULTS | request.GET.dict())
    if form.is_valid():
        if bound and bound.get("action") == "forecast":
            job = builds.forecast_start(owner=request.user, model=found.name, **form.settings())
            return redirect("vectors:forecast", job.pk)
        job = builds.vector_build(owner=request.user, model=found.name, **form.settings())
        return redirect("vectors:building", job.pk)
    datasets = Dataset.objects.visible_to(request.user).with_counts()
    context = {
        "form": form,
        "datasets": datasets,
        "model": model,
        "models": found.models,
        "methods": methods(),
        "common": COMMON,
        "default_layer": builds.default_layer(model),
    }
    return render(request, "vectors/build.html", context)


@require_GET
@never_cache
def vector_building(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """How a build is doing; leads to the vector once it is there."""
    job = get_object_or_404(Job.objects.owned_by(request.user).filter(kind__in=builds.KINDS), pk=pk)
    if job.state == Job.State.SUCCEEDED:
        return redirect(job.result_url)
    dataset = Dataset.objects.visible_to(request.user).filter(pk=job.request["dataset"]).first()
    context = {
        "job": job,
        "again": _again(job),
        "method": name_of(job.request["method"]),
        "recipe": builds.recipe_of(job),
        "optimises": job.kind != builds.KIND,
        "loss_name": loss_name(job.request["method"]),
        "doubts": [finding for finding in lint(dataset.pairs()) if finding.rule in DOUBTS] if dataset else [],
    }
    return render(request, "vectors/building.html", context)


def _again(job: Job) -> str:
    return f"{reverse('vectors:build')}?{urlencode(builds.build_settings(job))}"


@require_GET
@never_cache
def vector_forecast(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Whether a build would be worth it: how a forecast is doing, then what it says and which pairs disagree."""
    job = get_object_or_404(Job.objects.owned_by(request.user).filter(kind=builds.FORECAST), pk=pk)
    dataset = Dataset.objects.visible_to(request.user).filter(pk=job.request["dataset"]).first()
    context = {
        "job": job,
        "again": _again(job),
        "method": name_of(job.request["method"]),
        "recipe": builds.recipe_of(job),
        "dataset": dataset,
        "changed": dataset is not None and dataset.version != job.request["dataset_version"],
        "disagreeing": builds.disagreeing(job, dataset),
        "fields": builds.build_settings(job),
    }
    return render(request, "vectors/forecast.html", context)


@require_GET
def vector_detail(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    vector = library.visible(request.user, pk)
    found = served(request)
    model = found.model
    trained = training.training_of(vector.method, vector.facts)
    context = {
        "vector": vector,
        "facts": vector.facts,
        "evaluation": Evaluation.of(vector.evaluation),
        "usable": vector.usable_on(model),
        "elsewhere": any(vector.usable_on(other) for other in found.models),
        "model": model,
        "mine": vector.owner_id == request.user.pk,
        "plots": _plots(vector),
        "provenance": _provenance(vector),
        "exports": exports_of(vector, model),
        "snippets": snippets_of(vector, request.build_absolute_uri("/v1"), model),
        "again": again_url(vector),
        "training": trained,
        "curve": {"curve": trained.curve} if trained else None,
        "siblings": library.built_with(vector),
        "open_export": request.GET.get("open") == "export",
    }
    return render(request, "vectors/detail.html", context)


@require_GET
def vector_json(request: HttpRequest, pk: uuid.UUID) -> JsonResponse:
    vector = library.visible(request.user, pk)
    usable = vector.usable_on(served(request).model)
    facts = vector.playground_facts(usable=usable) | {"summary": vector.summary, "evaluation": vector.evaluation}
    return JsonResponse(facts)


@require_http_methods(["GET", "POST"])
def vector_rename(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    vector = _own(request, pk)
    form = RenameForm(request.POST or None, instance=vector)
    if request.method == "POST" and form.is_valid():
        return redirect(form.save())
    return render(request, "vectors/rename.html", {"vector": vector, "form": form})


@require_http_methods(["GET", "POST"])
def vector_delete(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Asks first, and refuses while a preset uses the vector."""
    vector = _own(request, pk)
    users = library.users_of(vector)
    if request.method == "GET" or users:
        status = 200 if request.method == "GET" else 409
        return render(request, "vectors/delete.html", {"vector": vector, "users": users}, status=status)
    library.vector_delete(vector)
    messages.success(request, f"“{vector.name}” was deleted.")
    return redirect("vectors:list")


def _own(request: HttpRequest, pk: uuid.UUID) -> Vector:
    return get_object_or_404(Vector.objects.owned_by(request.user), pk=pk)


def _plots(vector: Vector) -> dict[str, Any]:
    """The data of the plots by layer."""
    facts = vector.facts
    return {
        "name": vector.name,
        "recommended": facts.layer,
        "sink_from": facts.sink_from,
        "stats": [asdict(row) for row in facts.stats],
    }


def _provenance(vector: Vector) -> dict[str, Any]:
    """Everything one needs to build the vector again, for the copy button."""
    facts = vector.facts
    return {
        "id": f"sha256:{vector.content_id}",
        "model": vector.model_id,
        "revision": vector.revision,
        "hook_name": facts.hook_name,
        "method": vector.method,
        "read_positions": facts.summary["read_positions"],
        "dataset": {
            "name": vector.dataset.name if vector.dataset else None,
            "version": vector.dataset_version or None,
            "digest": facts.summary["dataset_digest"],
            "n_pairs": facts.summary["n_pairs"],
        },
        "recommended": recommended(facts),
        "norm": facts.norm_here,
        "residual_norm": facts.residual_norm,
        "created_at": vector.created_at.isoformat(),
        "provenance": facts.provenance,
    }
