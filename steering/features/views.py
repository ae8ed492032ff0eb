"""Sources, the search by label, and the list that the playground offers."""

from __future__ import annotations

import random
from typing import Any

from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from inference.errors import InferenceError, NotFound
from inference.types import FeatureRef, ModelInfo, SourceInfo
from steering.datasets.models import Dataset
from steering.features import labels, readings
from steering.features.models import FeatureLabel
from steering.features.texts import corpus_of
from steering.jobs.models import Job
from steering.refusals import parse_uuid
from steering.workers.choice import served
from steering.workers.sources import check_feature, source_of

PAGE = 50
RECENT = 8
OFFERED = 2000  # labels in the playground's list


def source_or_404(model: ModelInfo, id: str) -> SourceInfo:
    """One that cannot be used is there all the same, with its problem. Raises Http404."""
    if model.state == "loading":
        source_of(model, id)  # says so
    found = next((source for source in model.sources if source.id == id), None)
    if found is None:
        raise Http404
    return found


def sources_context(request: HttpRequest, model: ModelInfo) -> dict[str, Any]:
    usable = [source for source in model.sources if not source.problem]
    chosen = request.POST.get("source") or request.GET.get("source") or request.session.get("feature_source", "")
    known = next((source for source in usable if source.id == chosen), usable[0] if usable else None)
    return {"model": model, "sources": model.sources, "usable": usable, "chosen": known}


@require_GET
@never_cache
def home(request: HttpRequest) -> HttpResponse:
    """What there is to read with, a text to read, and what was read."""
    jobs = Job.objects.owned_by(request.user)
    own = jobs.filter(kind=readings.READ)
    context = sources_context(request, served(request).model) | {
        "active": jobs.active().filter(kind__in=readings.KINDS),
        "recent": own.filter(state=Job.State.SUCCEEDED)[:RECENT],
        "text": request.GET.get("text", ""),
        "labels": FeatureLabel.objects.visible_to(request.user).count(),
    }
    return render(request, "features/home.html", context)


@require_GET
def source(request: HttpRequest, source: str) -> HttpResponse:
    """One autoencoder: its facts, its index, the features that have a label."""
    model = served(request).model
    found = source_or_404(model, source)
    seen = labels.search(request.user, model.id, request.GET.get("q", "").strip(), source)
    jobs = Job.objects.owned_by(request.user).filter(kind=readings.INDEX, request__source=source)
    context = {
        "model": model,
        "source": found,
        "facts": facts_in_words(found),
        "page": Paginator(seen, PAGE).get_page(request.GET.get("page")),
        "query": request.GET.get("q", "").strip(),
        "any": FeatureLabel.objects.visible_to(request.user).filter(model_id=model.id, source=source).exists(),
        "indexing": jobs.active().first(),
        "failed": _failed_last(jobs),
        "datasets": Dataset.objects.visible_to(request.user) if request.user.is_staff else (),
        "somewhere": random.randrange(found.width) if found.width else 0,  # noqa: S311  a page to look at, no secret
    }
    return render(request, "features/source.html", context)


def _failed_last(jobs: Any) -> Job | None:
    last = jobs.first()
    return last if last is not None and last.state == Job.State.FAILED else None


def facts_in_words(source: SourceInfo) -> list[tuple[str, str]]:
    """What the source says of itself and of its training."""
    facts = source.facts
    said = [
        ("Reads", source.hook_name),
        ("Features", f"{source.width:,}"),
        ("Architecture", source.architecture),
        ("Comes from", source.origin),
        ("Size", f"{source.bytes / 2**20:.1f} MB, {'in memory' if source.loaded else 'loaded when it is needed'}"),
    ]
    numbers = {
        "explained_variance": ("Explained variance", "{:.1%}"),
        "l0": ("L0, features on per token", "{:.1f}"),
        "dead": ("Dead features", "{:.1%}"),
        "dead_share": ("Dead features", "{:.1%}"),
        "loss_recovered": ("Loss recovered when spliced in", "{:.1%}"),
    }
    for name, (words, form) in numbers.items():
        value = facts.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            said.append((words, form.format(value) if abs(value) <= 1 or name == "l0" else f"{value:,.0f}"))
    return said


@require_POST
def index(request: HttpRequest, source: str) -> HttpResponse:
    """Read a corpus for everyone here. For administrators: it replaces what all see, and shows its texts to all."""
    if not request.user.is_staff:
        raise Http404
    model = served(request).model
    found = source_or_404(model, source)
    try:
        dataset = _dataset(request)
        texts = corpus_of(request.POST.get("text", ""), dataset)
        what = f"“{dataset.name}”" if dataset else "pasted text"
        job = readings.index_start(owner=request.user, model=model, source=source, texts=texts, what=what)
    except InferenceError as error:
        context = {"model": model, "source": found, "facts": facts_in_words(found), "error": error}
        context |= {"datasets": Dataset.objects.visible_to(request.user), "text": request.POST.get("text", "")}
        return render(request, "features/source.html", context, status=400)
    return redirect(job.get_absolute_url())


def _dataset(request: HttpRequest) -> Dataset | None:
    if request.POST.get("from") != "dataset":
        return None
    pk = parse_uuid(request.POST.get("dataset", ""), "dataset")
    return get_object_or_404(Dataset.objects.visible_to(request.user), pk=pk)


@require_GET
def search(request: HttpRequest) -> HttpResponse:
    """By label at once; by text and by example through forms that start a job."""
    model = served(request).model
    words = request.GET.get("q", "").strip()
    by = request.GET.get("by", "label")
    context = sources_context(request, model) | {
        "query": words,
        "by": by if by in ("label", "text", "example") else "label",
    }
    if context["by"] == "label":
        found = labels.search(request.user, model.id, words)
        context["page"] = Paginator(found, PAGE).get_page(request.GET.get("page"))
        context["any"] = bool(words) or found.exists()
    return render(request, "features/search.html", context)


@require_GET
def go(request: HttpRequest) -> HttpResponse:
    """To a feature by its number, from a form."""
    model = served(request).model
    id, text = request.GET.get("source", ""), request.GET.get("index", "").strip().lstrip("#")
    number = int(text) if text.isdecimal() and len(text) < 10 else None
    try:
        if number is None:
            raise NotFound("feature_not_named", f"{text!r:.40} is no number of a feature. They count from 0.")
        check_feature(model, FeatureRef(id, number))
    except InferenceError as error:
        return render(request, "features/missing.html", {"error": error, "source": id}, status=404)
    return redirect("features:feature", id, number)


@require_GET
@never_cache
def library_json(request: HttpRequest) -> JsonResponse:
    """Sources and labelled features, for the playground's lists."""
    model = served(request, request.GET.get("model", "")).model
    usable = [source for source in model.sources if not source.problem]
    seen = labels.search(request.user, model.id, "")[:OFFERED]
    best: dict[tuple[str, int], FeatureLabel] = {}
    for label in sorted(seen, key=lambda label: (label.proposed, label.owner_id != request.user.pk)):
        best.setdefault((label.source, label.index), label)
    return JsonResponse(
        {
            "model": model.id,
            "sources": [
                {"id": s.id, "layer": s.layer, "hook_name": s.hook_name, "width": s.width, "indexed": s.indexed}
                for s in usable
            ],
            "features": [
                {"source": source, "index": index} | (labels.named(label, request.user) or {})
                for (source, index), label in sorted(best.items())
            ],
        }
    )
