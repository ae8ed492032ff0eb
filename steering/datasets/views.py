"""Pages of datasets: the list, one dataset, its export. Strangers get a 404 for everything that is not theirs."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from steering.datasets import starter_catalog
from steering.datasets.exporting import export_file
from steering.datasets.library import dataset_duplicate
from steering.datasets.lint import Finding, lint
from steering.datasets.models import Dataset, ImportDraft
from steering.datasets.tokens import TokenCheck, check_tokens

PAGE = 50
ROWS_NAMED = 12


@require_GET
@never_cache
def dataset_list(request: HttpRequest) -> HttpResponse:
    visible = Dataset.objects.visible_to(request.user).with_counts()
    order = [starter.slug for starter in starter_catalog.catalogue()]
    starters = sorted(visible.filter(owner=None), key=lambda d: order.index(d.slug) if d.slug in order else len(order))
    context = {
        "mine": visible.exclude(owner=None),
        "starters": starters,
        "drafts": ImportDraft.objects.owned_by(request.user).defer("text"),
    }
    return render(request, "datasets/list.html", context)


@require_GET
@never_cache
def dataset_detail(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    dataset = get_object_or_404(Dataset.objects.visible_to(request.user), pk=pk)
    pairs = dataset.pairs()
    page = Paginator(pairs, PAGE).get_page(request.GET.get("page"))
    context = {
        "dataset": dataset,
        "n_pairs": len(pairs),
        "digest": dataset.digest(),
        "page": page,
        "rows": list(enumerate(page.object_list, page.start_index())),
        "findings": [_with_places(finding) for finding in lint(pairs)],
        "starter": starter_catalog.starter(dataset.slug) if dataset.is_starter else None,
    }
    return render(request, "datasets/detail.html", context)


@require_GET
@never_cache
def dataset_lint(request: HttpRequest, pk: uuid.UUID) -> JsonResponse:
    """The findings, and what the tokenizer says, as JSON."""
    dataset = get_object_or_404(Dataset.objects.visible_to(request.user), pk=pk)
    pairs = dataset.pairs()
    tokens = check_tokens(pairs)
    return JsonResponse({"findings": [_with_places(f) for f in lint(pairs)], "tokens": _with_places(tokens)})


def _with_places(finding: Finding | TokenCheck) -> dict[str, Any]:
    """For a page: the first rows by number, each with the page on which it stands."""
    places = [{"row": row, "page": (row - 1) // PAGE + 1} for row in finding.rows[:ROWS_NAMED]]
    more = len(finding.rows) - len(places)
    return {**vars(finding), "rows": list(finding.rows[:ROWS_NAMED]), "places": places, "more": more}


@require_POST
def dataset_duplicate_view(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    dataset = get_object_or_404(Dataset.objects.visible_to(request.user), pk=pk)
    copy = dataset_duplicate(dataset=dataset, owner=request.user)
    messages.success(request, f"This copy of “{dataset.name}” is yours to change.")
    return redirect(copy)


@require_http_methods(["GET", "POST"])
def dataset_delete(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    dataset = get_object_or_404(Dataset.objects.owned_by(request.user).with_counts(), pk=pk)
    if request.method == "GET":
        return render(request, "datasets/delete.html", {"dataset": dataset})
    dataset.delete()
    messages.success(request, f"“{dataset.name}” is deleted. Vectors built from it stay.")
    return redirect("datasets:list")


@require_GET
def dataset_export(request: HttpRequest, pk: uuid.UUID, ending: str) -> HttpResponse:
    dataset = get_object_or_404(Dataset.objects.visible_to(request.user), pk=pk)
    name, content_type, body = export_file(dataset, ending)
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    return HttpResponse(body, content_type=content_type, headers=headers)
