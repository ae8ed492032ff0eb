"""Pages on which the model is asked for pairs, and what it wrote is read, edited and saved."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from inference.persona import QUESTIONS, SITUATIONS, DescribedPairs, PersonaPairs, instructions_for
from steering.datasets.asking import KINDS, draft_rewrite, pairs_ask, rows_of_draft, with_notes
from steering.datasets.asking_forms import AskForm
from steering.datasets.editing import BLANK_ROWS
from steering.datasets.forms import AboutForm
from steering.datasets.library import dataset_create
from steering.datasets.models import Dataset, ImportDraft
from steering.datasets.typed import TypedRow, pair_of, typed_rows
from steering.jobs.models import Job
from steering.workers.choice import served


@require_http_methods(["GET", "POST"])
@never_cache
def pairs_ask_page(request: HttpRequest) -> HttpResponse:
    bound = request.POST if request.method == "POST" else None
    found = served(request, (bound or request.GET).get("model", ""))
    form = AskForm(bound, model=found.model, initial=AskForm.DEFAULTS | request.GET.dict())
    if form.is_valid():
        asked = dataclasses.replace(form.asked, model=found.name)
        job = pairs_ask(owner=request.user, request=asked, name=form.cleaned_data["name"])
        return redirect("datasets:describing", job.pk)
    context = {
        "form": form,
        "model": found.model,
        "models": found.models,
        "replies": _defaults(DescribedPairs),
        "persona": _defaults(PersonaPairs),
        "templates": instructions_for("TRAIT", "OPPOSITE"),
        "situations": SITUATIONS,
        "questions": QUESTIONS,
    }
    return render(request, "datasets/describe.html", context)


def _defaults(kind: type[PersonaPairs] | type[DescribedPairs]) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(kind)}


@require_GET
@never_cache
def pairs_wait(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """How the writing is doing; leads to the draft once it is there."""
    job = get_object_or_404(Job.objects.owned_by(request.user).filter(kind__in=KINDS), pk=pk)
    if job.state == Job.State.SUCCEEDED:
        return redirect(job.result_url)
    again = f"{reverse('datasets:describe')}?{urlencode(asked_again(job))}"
    return render(request, "datasets/describing.html", {"job": job, "again": again})


def asked_again(job: Job) -> dict[str, Any]:
    """The settings of an earlier asking as the page's query, to change and try again."""
    asked = job.request
    names = ("count", "judge", "max_tokens", "temperature", "rounds", "seed", "opposite", "name", "model")
    settings = {name: asked[name] for name in names if asked.get(name) not in (None, "")}
    instructions = asked.get("instructions", ())
    return settings | {
        "how": "persona" if job.kind == PersonaPairs.kind else "description",
        "trait": asked.get("trait") or asked.get("description", ""),
        "prompts": "\n".join(asked.get("questions") or asked.get("situations") or ()),
        "positive": "\n".join(each["positive"] for each in instructions),
        "negative": "\n".join(each["negative"] for each in instructions),
    }


@require_http_methods(["GET", "POST"])
@never_cache
def draft_review(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """What the model wrote, as a table to edit. Every button but Discard first keeps what stands on the page."""
    draft = get_object_or_404(ImportDraft.objects.owned_by(request.user).exclude(written={}), pk=pk)
    if request.method == "GET":
        about = AboutForm(initial={"name": draft.name, "description": draft.description})
        return _review_page(request, draft, about, rows_of_draft(draft))
    if request.POST.get("action") == "discard":
        draft.delete()
        messages.success(request, "The draft is discarded.")
        return redirect("datasets:list")
    about, rows = AboutForm(request.POST), typed_rows(request.POST)
    if not about.is_valid() or not rows or any(row.problem for row in rows):
        return _review_page(request, draft, about, with_notes(draft, rows), no_rows=not rows)
    if request.POST.get("action") not in ("save", "build"):
        draft_rewrite(draft, rows, **about.cleaned_data)
        messages.success(request, "The draft is kept as it stands.")
        return redirect(draft)
    dataset = _save(request, draft, about, rows)
    if request.POST["action"] == "build":
        query = {"dataset": dataset.pk, "method": "mean_difference", "pooling": "mean", "span": "answer"}
        chat = {"chat": "on"} if draft.written.get("kind") == PersonaPairs.kind else {}
        return redirect(f"{reverse('vectors:build')}?{urlencode(query | chat)}")
    messages.success(request, f"“{dataset.name}” is saved.")
    return redirect(dataset)


@transaction.atomic
def _save(request: HttpRequest, draft: ImportDraft, about: AboutForm, rows: list[TypedRow]) -> Dataset:
    dataset = dataset_create(owner=request.user, rows=[pair_of(row) for row in rows], **about.cleaned_data)
    draft.delete()
    return dataset


def _review_page(
    request: HttpRequest, draft: ImportDraft, about: AboutForm, rows: list[TypedRow], *, no_rows: bool = False
) -> HttpResponse:
    context = {
        "draft": draft,
        "written": draft.written,
        "about": about,
        "rows": rows + [TypedRow()] * BLANK_ROWS,
        "no_rows": no_rows,
        "bad_rows": sum(bool(row.problem) for row in rows),
    }
    return render(request, "datasets/review.html", context)
