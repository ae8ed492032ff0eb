from __future__ import annotations

import csv
import io
import json
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.text import slugify
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from inference.errors import InferenceError, InvalidRequest
from steering import gateway
from steering.rating import rating, results, writing
from steering.rating.forms import StudyForm
from steering.rating.models import Rater, Study
from steering.rating.planning import study_create
from steering.workers.choice import served

FORMULA = ("=", "+", "-", "@", "\t", "\r")


@require_GET
def study_list(request: HttpRequest) -> HttpResponse:
    own = Study.objects.owned_by(request.user)
    joined = Study.objects.filter(raters__user=request.user.pk, shared=True).exclude(owner=request.user.pk)
    return render(request, "rating/list.html", {"own": own, "joined": joined})


@require_http_methods(["GET", "POST"])
def study_new(request: HttpRequest) -> HttpResponse:
    found = served(request)
    bound = request.POST if request.method == "POST" else None
    initial = StudyForm.DEFAULTS | request.GET.dict()
    form = StudyForm(bound, user=request.user, model=found.model, initial=initial)
    if bound is not None and form.is_valid():
        data = form.cleaned_data
        try:
            study = study_create(
                owner=request.user,
                name=data["name"].strip() or f"Study of {timezone.now():%-d %b, %H:%M}",  # raters see it
                question=data["question"].strip(),
                settings=data["settings"],
                prompts=data["prompts"],
                model=found.model,
            )
        except InvalidRequest as error:
            form.add_error(error.code if error.code in form.fields else None, error.message)
        else:
            _write(request, study)
            return redirect(study)
    context = {"form": form, "model": found.model, "vectors": form.fields["vector"].queryset}  # type: ignore[attr-defined]
    return render(request, "rating/new.html", context, status=400 if form.errors else 200)


@require_GET
@never_cache
def study_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    """How far it is; after one's own end, what came out. Before, no word of the answers is here."""
    study = _open(request, pk)
    mine = study.owner_id == request.user.pk
    if mine and study.state == Study.State.WRITING:
        _write(request, study)
    rater = study.raters.filter(user=request.user.pk).first()
    context = {
        "study": study,
        "mine": mine,
        "rater": rater,
        "answered": rater.answers.count() if rater else 0,
        "progress": _progress(study),
        "results": results.results_of(study) if results.may_see(study, request.user) else None,
        "link": request.build_absolute_uri(study.get_absolute_url()),
    }
    return render(request, "rating/detail.html", context)


@require_GET
@never_cache
def study_status(request: HttpRequest, pk: UUID) -> JsonResponse:
    study = _own(request, pk)
    return JsonResponse({"state": study.state, "error": study.error_message, **_progress(study)})


@require_POST
def study_resume(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Go on writing after a failure. What was written stays."""
    study = _own(request, pk)
    failed = Study.objects.filter(pk=study.pk, state=Study.State.FAILED)
    failed.update(state=Study.State.WRITING, error_code="", error_message="", heartbeat_at=None)
    _write(request, study)
    return redirect(study)


@require_http_methods(["GET", "POST"])
@never_cache
def study_rate(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The next pair; POST answers one, takes one back, or ends the pass."""
    study = _open(request, pk)
    try:
        rater = rating.rater_of(study, request.user)
        if request.method == "POST":
            return _act(request, study, rater)
    except InvalidRequest as error:
        messages.error(request, error.message)
        return redirect(study)
    if rater.revealed_at is not None:
        return redirect(study)
    question = rating.question_of(rater)
    context = {"study": study, "question": question, "answered": rater.answers.count(), "count": len(rater.order)}
    return render(request, "rating/rate.html", context)


def _act(request: HttpRequest, study: Study, rater: Rater) -> HttpResponse:
    match request.POST.get("act", ""):
        case "undo":
            rating.undo(rater)
        case "reveal":
            rating.reveal(rater)
            return redirect(study)
        case side:
            place = request.POST.get("place", "")
            rating.answer(rater, int(place) if place.isdecimal() and len(place) < 6 else -1, side)
    return redirect("rating:rate", study.pk)


@require_POST
def study_share(request: HttpRequest, pk: UUID) -> HttpResponse:
    """shared=1 lets everybody here rate who has the link; anything else ends it."""
    study = _own(request, pk)
    study.shared = request.POST.get("shared") == "1"
    study.save(update_fields=["shared"])
    said = "Everyone here who has the link can rate it." if study.shared else "From now on only you can open it."
    messages.success(request, said)
    return redirect(study)


@require_http_methods(["GET", "POST"])
def study_delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    study = _own(request, pk)
    if request.method == "GET":
        return render(request, "rating/delete.html", {"study": study})
    work = writing.work_of(study.pk)
    study.delete()
    gateway.spawn(gateway.inference().cancel(work))
    messages.success(request, f"“{study.name}” was deleted.")
    return redirect("rating:list")


@require_GET
@never_cache
def study_export(request: HttpRequest, pk: UUID, ending: str) -> HttpResponse:
    """Every answer of passes that have ended, for those who have ended theirs."""
    study = _open(request, pk)
    if not results.may_see(study, request.user):
        text = "Nothing is told before you have rated to the end. Finish rating, then download."
        return render(request, "rating/refused.html", {"study": study, "text": text}, status=409)
    found = list(results.rows(study))
    headers = {"Content-Disposition": f'attachment; filename="{slugify(study.name) or "rating"}.{ending}"'}
    if ending == "jsonl":
        lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in found)
        return HttpResponse(lines, content_type="application/jsonl; charset=utf-8", headers=headers)
    return HttpResponse(_csv(found), content_type="text/csv; charset=utf-8", headers=headers)


def _csv(found: list[dict[str, object]]) -> str:
    out = io.StringIO()
    table = csv.writer(out)
    columns = ("rater", "item", "prompt", "base", "steered", "steered_side", "preferred", "seed")
    table.writerow(columns)
    for row in found:
        table.writerow(
            [f"'{v}" if isinstance(v := row[name], str) and v.startswith(FORMULA) else v for name in columns]
        )
    return out.getvalue()


def _write(request: HttpRequest, study: Study) -> None:
    """See to it that somebody writes; what hinders it is said on the page, and tried again with the next look."""
    try:
        writing.study_write(study)
    except InferenceError as error:
        messages.error(request, error.message)


def _progress(study: Study) -> dict[str, int]:
    items = study.items
    return {"done": items.exclude(base=None).exclude(steered=None).count(), "total": items.count()}


def _open(request: HttpRequest, pk: UUID) -> Study:
    return get_object_or_404(Study.objects.open_to(request.user).select_related("owner"), pk=pk)


def _own(request: HttpRequest, pk: UUID) -> Study:
    return get_object_or_404(Study.objects.owned_by(request.user).select_related("owner"), pk=pk)
