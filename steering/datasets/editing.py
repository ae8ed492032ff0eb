"""Pages on which datasets come into being and change: the typed table, the import and its preview."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from inference.types import Pair
from steering.datasets.columns import ROLES
from steering.datasets.drafts import draft_create, draft_finish, draft_read, draft_update
from steering.datasets.forms import AboutForm, SourceForm, UnnamedForm
from steering.datasets.importing import Import
from steering.datasets.library import Conflict, copy_name, dataset_create, dataset_revise, spliced
from steering.datasets.limits import MAX_ROWS, BadText
from steering.datasets.models import Dataset, ImportDraft
from steering.datasets.records import Record
from steering.datasets.typed import TypedRow, pair_of, rows_of, typed_rows

PAGE = 50
BLANK_ROWS = 3
PREVIEW_ROWS = 20
PROBLEMS_SHOWN = 20


@require_http_methods(["GET", "POST"])
@never_cache
def dataset_new(request: HttpRequest, how: str = "type") -> HttpResponse:
    """One page, three ways: typing ends in a dataset; a pasted text or a file goes on to its preview."""
    how = request.POST.get("how") or request.GET.get("how") or how
    if request.method == "GET":
        return _new_page(request, how, AboutForm())
    return _new_typed(request) if how == "type" else _new_import(request, how)


def _new_typed(request: HttpRequest) -> HttpResponse:
    about, rows = AboutForm(request.POST), typed_rows(request.POST)
    if not about.is_valid() or not rows or any(row.problem for row in rows):
        return _new_page(request, "type", about, rows=rows, no_rows=not rows)
    dataset = dataset_create(owner=request.user, rows=[pair_of(row) for row in rows], **about.cleaned_data)
    messages.success(request, f"“{dataset.name}” is saved.")
    return redirect(dataset)


def _new_import(request: HttpRequest, how: str) -> HttpResponse:
    about, source = UnnamedForm(request.POST), SourceForm(request.POST, request.FILES, how=how)
    if not about.is_valid() or not source.is_valid():
        return _new_page(request, how, about, rows=typed_rows(request.POST), source=source)
    found = {key: source.cleaned_data[key] for key in ("source", "text")}
    return redirect(draft_create(owner=request.user, **found, **about.cleaned_data))


def _new_page(
    request: HttpRequest,
    how: str,
    about: AboutForm,
    *,
    rows: list[TypedRow] | None = None,
    source: SourceForm | None = None,
    no_rows: bool = False,
) -> HttpResponse:
    context = {
        "how": how,
        "about": about,
        "rows": (rows or []) + [TypedRow()] * BLANK_ROWS,
        "pasted": request.POST.get("pasted", ""),
        "source_errors": source.non_field_errors() if source else (),
        "no_rows": no_rows,
        "bad_rows": sum(bool(row.problem) for row in rows or ()),
    }
    return render(request, "datasets/new.html", context)


@require_http_methods(["GET", "POST"])
@never_cache
def dataset_preview(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """What an uploaded text would become. Every button first keeps what was typed or chosen on the page."""
    draft = get_object_or_404(ImportDraft.objects.owned_by(request.user), pk=pk)
    action = request.POST.get("action")
    if action == "discard":
        draft.delete()
        return redirect("datasets:new")
    if not action:
        return _preview_page(request, draft, _about(draft))
    draft_update(draft, request.POST.dict())
    return _preview_save(request, draft) if action.startswith("save") else redirect(draft)


def _about(draft: ImportDraft) -> AboutForm:
    return AboutForm(initial={"name": draft.name, "description": draft.description})


def _preview_save(request: HttpRequest, draft: ImportDraft) -> HttpResponse:
    about = AboutForm(request.POST)
    found = draft_read(draft)
    left_out = len(found.read.problems)
    if left_out and request.POST["action"] != "save_good":  # a line was mended badly, or a new fault came up
        return redirect(draft)
    if not about.is_valid() or not found.read.rows:
        return _preview_page(request, draft, about)
    dataset = draft_finish(draft, found, **about.cleaned_data)
    lines = f", {left_out} line{'s' * (left_out > 1)} left out" if left_out else ""
    messages.success(request, f"{len(found.read.rows):,} pairs imported{lines}.")
    return redirect(dataset)


def _preview_page(request: HttpRequest, draft: ImportDraft, about: AboutForm) -> HttpResponse:
    try:
        found = draft_read(draft)
    except BadText as error:
        return render(request, "datasets/preview_refused.html", {"draft": draft, "why": error})
    rows, lines, problems = found.read.rows, found.read.lines, found.read.problems
    context = {
        "draft": draft,
        "about": about,
        "found": found,
        "rows": list(zip(lines[:PREVIEW_ROWS], rows[:PREVIEW_ROWS], strict=True)),
        "problems": problems[:PROBLEMS_SHOWN],
        "more_problems": max(0, len(problems) - PROBLEMS_SHOWN),
        "samples": [_cells(found, record) for record in found.table.records[:3]] if found.missing else (),
        "roles": [_role(found, role) for role in ROLES],
        "columns_were": "|".join(found.mapping.get(role, "") for role in ROLES),
    }
    return render(request, "datasets/preview.html", context)


def _cells(found: Import, record: Record) -> list[str]:
    return [str(record.values.get(column, "")) for column in found.table.columns]


def _role(found: Import, role: str) -> dict[str, Any]:
    column = found.mapping.get(role, "")
    sample = next((str(r.values[column]) for r in found.table.records if r.values.get(column)), "")
    return {"name": role, "column": column, "sample": sample, "missing": role in found.missing}


@require_http_methods(["GET", "POST"])
@never_cache
def dataset_edit(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """A page of 50 pairs at a time. Saving says which version was read; another one saved since is a conflict."""
    dataset = get_object_or_404(Dataset.objects.owned_by(request.user), pk=pk)
    pairs = dataset.pairs()
    start = _number(request, "start", (_number(request, "page", 1) - 1) * PAGE, most=len(pairs))
    stop = len(pairs) if "whole" in request.POST else _number(request, "stop", start + PAGE, most=len(pairs))
    if request.method == "GET":
        rows = rows_of(pairs[start:stop])
        return _edit_page(request, dataset, AboutForm(instance=dataset), rows, start, stop, dataset.version)
    about, rows = AboutForm(request.POST), typed_rows(request.POST, pairs[start:stop])
    version = _number(request, "version", 0)
    bad = any(row.problem for row in rows) or len(pairs) - (stop - start) + len(rows) > MAX_ROWS
    if not about.is_valid() or bad:
        return _edit_page(request, dataset, about, rows, start, stop, version)
    typed = [pair_of(row) for row in rows]
    if request.POST.get("action") == "copy":
        return _save_copy(request, about, spliced(pairs, typed, start, stop), dataset.kind)
    return _save(request, dataset, about, rows, start, stop, version)


def _save(
    request: HttpRequest, dataset: Dataset, about: AboutForm, rows: list[TypedRow], start: int, stop: int, version: int
) -> HttpResponse:
    typed = [pair_of(row) for row in rows]
    words = about.cleaned_data
    try:
        dataset_revise(dataset=dataset, seen_version=version, rows=typed, start=start, stop=stop, **words)
    except Conflict as conflict:
        return _edit_page(request, dataset, about, rows, start, stop, version, saved=conflict.version)
    messages.success(request, f"Version {dataset.version} is saved.")
    return redirect(dataset)


def _save_copy(request: HttpRequest, about: AboutForm, pairs: tuple[Pair, ...], kind: str) -> HttpResponse:
    words = {**about.cleaned_data, "name": copy_name(about.cleaned_data["name"])}
    dataset = dataset_create(owner=request.user, rows=pairs, kind=kind, **words)
    messages.success(request, f"Your changes are saved as “{dataset.name}”; the other dataset is as it was.")
    return redirect(dataset)


def _number(request: HttpRequest, name: str, default: int, most: int | None = None) -> int:
    text = request.POST.get(name) or request.GET.get(name) or ""
    number = int(text) if text.isdecimal() and len(text) < 10 else default
    return max(0, number if most is None else min(number, most))


def _edit_page(
    request: HttpRequest,
    dataset: Dataset,
    about: AboutForm,
    rows: list[TypedRow],
    start: int,
    stop: int,
    version: int,
    *,
    saved: int = 0,
) -> HttpResponse:
    count = dataset.examples.count()
    context = {
        "dataset": dataset,
        "about": about,
        "rows": rows + [TypedRow()] * (BLANK_ROWS if stop >= count else 1),
        "start": start,
        "stop": stop,
        "count": count,
        "seen_version": version,
        "saved": saved,
        "bad_rows": sum(bool(row.problem) for row in rows),
        "pages": range(1, -(-max(count, 1) // PAGE) + 1),
        "page": start // PAGE + 1,
        "paged": start > 0 or stop < count,
    }
    return render(request, "datasets/edit.html", context)
