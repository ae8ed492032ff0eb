from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from inference.errors import InvalidRequest
from steering.jobs.models import Job
from steering.vectors import combining, comparing
from steering.vectors.models import Vector
from steering.workers.choice import served


@require_http_methods(["GET", "POST"])
@never_cache
def compare(request: HttpRequest) -> HttpResponse:
    """GET ?v=…&v=…&layer=… shows a comparison, and asks to start one that there is not; POST starts it."""
    asked = (request.POST if request.method == "POST" else request.GET).getlist("v")
    try:
        vectors = list(combining.visible(request.user, list(dict.fromkeys(asked))[: comparing.MOST + 1]).values())
    except InvalidRequest:
        raise Http404 from None  # others' vectors are as absent as none
    error = None
    if request.method == "POST" or len(vectors) > 1:
        try:
            comparing.check(vectors)
            if request.method == "POST":
                comparing.comparison_start(owner=request.user, vectors=vectors, model=_model(request, vectors))
                return redirect(_address(vectors, request.POST.get("layer", "")))
        except InvalidRequest as refused:
            error = refused
    context = _library(request) | {"chosen": vectors, "chosen_ids": {v.pk for v in vectors}, "error": error}
    if len(vectors) > 1 and not error:
        context |= _comparison(request, vectors)
    return render(request, "vectors/compare.html", context, status=400 if error else 200)


@require_POST
def combine(request: HttpRequest) -> HttpResponse:
    """Start a combination; what is refused comes back as a page that says why."""
    try:
        wanted = combining.read(request.user, request.POST, request.POST.getlist("v"), request.POST.getlist("weight"))
        need_one = wanted.terms or _none()
        model = _model(request, [vector for vector, _ in need_one])
        job = combining.combine_start(owner=request.user, combination=wanted, model=model)
    except InvalidRequest as refused:
        context = _library(request) | {"error": refused, "entered": request.POST}
        chosen = [v for v in context["library"] if str(v.pk) in request.POST.getlist("v")]
        context |= {"chosen": chosen, "chosen_ids": {v.pk for v in chosen}, "combining": True}
        return render(request, "vectors/compare.html", context, status=400)
    return redirect("vectors:combining", job.pk)


def _none() -> Any:
    raise InvalidRequest("vectors", "Choose the vectors to combine.")


@require_GET
@never_cache
def combining_job(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """How a combination is doing; leads to the vector once it is there."""
    job = get_object_or_404(Job.objects.owned_by(request.user).filter(kind=combining.KIND), pk=pk)
    if job.state == Job.State.SUCCEEDED:
        return redirect(job.result_url)
    again = f"{reverse('vectors:compare')}?{urlencode([('v', id) for id in job.request['vectors']])}"
    return render(request, "vectors/combining.html", {"job": job, "again": again})


def _library(request: HttpRequest) -> dict[str, Any]:
    model = served(request).model
    seen = Vector.objects.visible_to(request.user).in_library_order()
    return {
        "library": [v for v in seen if v.usable_on(model)],
        "model": model,
        "operations": combining.WORDS,
    }


def _model(request: HttpRequest, vectors: list[Vector]) -> str:
    """What the job says to mean the vectors' model; empty where only one is served."""
    return vectors[0].model_id if served(request).models else ""


def _address(vectors: list[Vector], layer: str) -> str:
    query = [("v", str(vector.pk)) for vector in vectors] + ([("layer", layer)] if layer else [])
    return f"{reverse('vectors:compare')}?{urlencode(query)}"


def _comparison(request: HttpRequest, vectors: list[Vector]) -> dict[str, Any]:
    job = comparing.comparison_of(request.user, vectors)
    if job is None or job.state != Job.State.SUCCEEDED:
        return {"job": job}
    found = comparing.found_by(job, request.user, vectors)
    found["layer"] = comparing.layer_of(vectors, found["layers"], request.GET.get("layer", ""))
    dropped = [row for row in found["dropped"] if row["layers"]]
    return {"job": job, "found": found, "dropped": dropped}
