"""Texts that were read: the form's answer, the page, and what the page asks further."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from inference.errors import InferenceError, InvalidRequest
from inference.types import ModelInfo, Wire
from steering import gateway
from steering.access.principal import Principal
from steering.features import asking, labels, readings
from steering.features.texts import check_text, examples_of, talk_of
from steering.features.views import sources_context
from steering.jobs.models import Job
from steering.refusals import need, parse_json
from steering.workers.choice import served

MAX_VALUES = 16
STATUS = {"not_found": 404, "busy": 429, "unavailable": 503, "engine_fault": 500}


@require_POST
def read(request: HttpRequest) -> HttpResponse:
    """Start reading a text or a talk; what is refused comes back with the form."""
    model = served(request).model
    text, chat = request.POST.get("text", ""), request.POST.get("as") == "chat"
    source = request.POST.get("source", "")
    try:
        messages = talk_of(text) if chat else ()
        if not chat:
            check_text(text)
        need(not chat or model.has_chat_template, "no_template", f"{model.id} has no chat template. Read plain text.")
        job = readings.reading_start(owner=request.user, model=model, source=source, text=text, messages=messages)
    except InferenceError as error:
        context = sources_context(request, model) | {"text": text, "chat": chat, "error": error}
        template = "features/search.html" if request.POST.get("from") == "search" else "features/home.html"
        return render(request, template, context | {"by": "text"}, status=STATUS.get(error.kind, 400))
    request.session["feature_source"] = source
    return redirect("features:reading", job.pk)


def _reading(request: HttpRequest, pk: uuid.UUID, kind: str = readings.READ) -> Job:
    return get_object_or_404(Job.objects.owned_by(request.user).filter(kind=kind), pk=pk)


@require_GET
@never_cache
def reading(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    job = _reading(request, pk)
    asked = readings.request_of(job)
    text = (
        asked.text
        if asked.text is not None
        else "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in asked.messages or ())
    )
    context = {
        "job": job,
        "text": text,
        "chat": asked.messages is not None,
        "source_id": asked.source,
        "model": served(request).model,
    }
    return render(request, "features/reading.html", context)


@require_GET
@never_cache
def reading_json(request: HttpRequest, pk: uuid.UUID) -> JsonResponse:
    """The result, with a label for every feature in it that has one."""
    job = _reading(request, pk)
    need(job.state == Job.State.SUCCEEDED, "not_ready", "This text has not been read. Wait, or read it again.")
    found, source = job.result, job.request["source"]
    seen = {index for row in found["top"] for index, _ in row} | {row[0] for row in found["overall"]}
    return JsonResponse(found | {"source": source, "limit": job.request["top"], "labels": _labels(request, job, seen)})


def _labels(request: HttpRequest, job: Job, indices: Any) -> dict[int, Any]:
    best = labels.best_labels(request.user, job.request["model_id"], job.request["source"], indices)
    return {index: labels.named(label, request.user) for index, label in best.items()}


@dataclasses.dataclass(frozen=True)
class More(Wire):
    """Values of `features` at every token, or features by their sum over the tokens at `sort_by`."""

    features: tuple[int, ...] = ()
    sort_by: tuple[int, ...] = ()


@require_POST
def reading_more(request: HttpRequest, pk: uuid.UUID) -> JsonResponse:
    job = _reading(request, pk)
    asked = More.from_wire(parse_json(request.body))
    need(len(asked.features) <= MAX_VALUES, "too_many", f"At most {MAX_VALUES} features at once.")
    again = dataclasses.replace(
        readings.request_of(job), top=1, overall=readings.OVERALL, features=asked.features, sort_by=asked.sort_by
    )
    found = asking.read_again(Principal(request.user), _model_of(job), again)  # type: ignore[arg-type]
    listed = found.get("sorted") or []
    return JsonResponse(
        {
            "values": found.get("values") or {},
            "sorted": listed,
            "labels": _labels(request, job, {*asked.features, *(row[0] for row in listed)}),
        }
    )


def _model_of(job: Job) -> ModelInfo:
    wanted = job.request["model_id"]
    info = next((m for m in gateway.models() if m.id == wanted), None)
    if info is None:
        raise InvalidRequest("model_gone", f"{wanted} read this text and is not served now. Read it with another.")
    return info


# ---- by example ----


@require_POST
def search_by_example(request: HttpRequest) -> HttpResponse:
    model = served(request).model
    texts, against = request.POST.get("texts", ""), request.POST.get("against", "")
    source = request.POST.get("source", "")
    try:
        examples = examples_of(texts, "Examples")
        need(bool(examples), "empty_text", "Give at least one example: a text in which the features should fire.")
        others = examples_of(against, "Other texts")
        job = readings.search_start(owner=request.user, model=model, source=source, texts=examples, against=others)
    except InferenceError as error:
        context = sources_context(request, model) | {
            "by": "example",
            "error": error,
            "texts": texts,
            "against": against,
        }
        return render(request, "features/search.html", context, status=STATUS.get(error.kind, 400))
    request.session["feature_source"] = source
    return redirect("features:found", job.pk)


@require_GET
@never_cache
def found(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Features that tell examples from other texts."""
    job = _reading(request, pk, readings.SEARCH)
    rows = job.result.get("found", []) if job.state == Job.State.SUCCEEDED else []
    named = labels.best_labels(request.user, job.request["model_id"], job.request["source"], [r["index"] for r in rows])
    context = {
        "job": job,
        "source_id": job.request["source"],
        "rows": [row | {"label": named.get(row["index"])} for row in rows],
        "examples": job.request["examples"],
        "others": job.request["others"],
    }
    return render(request, "features/found.html", context)
