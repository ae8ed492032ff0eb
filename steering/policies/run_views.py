"""Pages that do something with policies: run, compare, evaluate, tune; and what came of it."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.text import slugify
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from inference.errors import InferenceError
from inference.types import ModelInfo
from steering.access.principal import Principal
from steering.accounts.models import User
from steering.naming import NO_ID, id_in
from steering.policies import exporting, library, starting
from steering.policies.chosen import of_entry, of_stored
from steering.policies.forms import AskForm, EvaluateForm, RunForm, TuneForm
from steering.policies.keeping import save_trial
from steering.policies.models import PolicyRun, StoredPolicy
from steering.policies.reading import reading_of
from steering.policies.views import newest_first
from steering.workers.choice import served

PAGE = 30
FORMS: dict[str, type[AskForm]] = {"run": RunForm, "evaluate": EvaluateForm, "tune": TuneForm}
TEMPLATES = {"run": "policies/run_new.html", "evaluate": "policies/evaluate_new.html", "tune": "policies/tune_new.html"}


@require_GET
@never_cache
def run_list(request: HttpRequest) -> HttpResponse:
    mine = PolicyRun.objects.owned_by(request.user).select_related("job").defer("result")
    kind = request.GET.get("kind", "")
    if kind in PolicyRun.Kind.values:
        mine = mine.filter(kind=kind)
    page = Paginator(mine, PAGE).get_page(request.GET.get("page"))
    return render(request, "policies/runs.html", {"page": page, "kind": kind, "kinds": PolicyRun.Kind.choices})


# ---- new ----


@require_http_methods(["GET", "POST"])
@never_cache
def run_new(request: HttpRequest) -> HttpResponse:
    return _new(request, "run")


@require_http_methods(["GET", "POST"])
@never_cache
def evaluate_new(request: HttpRequest) -> HttpResponse:
    return _new(request, "evaluate")


@require_http_methods(["GET", "POST"])
@never_cache
def tune_new(request: HttpRequest) -> HttpResponse:
    return _new(request, "tune")


def _new(request: HttpRequest, what: str) -> HttpResponse:
    model = served(request).model
    form_of = FORMS[what]
    if request.method == "POST":
        form = form_of(request.POST, user=request.user, model=model)
        if form.is_valid() and (run := _begin(request, form, model)):
            return redirect(run)
    else:
        chosen = [text for text in request.GET.getlist("policy") if id_in(text) != NO_ID]
        form = form_of(
            user=request.user, model=model, initial={"policies": chosen, "prompt": request.GET.get("prompt")}
        )
    context = {
        "form": form,
        "what": what,
        "groups": _own_first(request),
        "chosen": {str(pk) for pk in form["policies"].value() or ()},
        "model": model,
    }
    status = 400 if form.is_bound and form.errors else 200
    return render(request, TEMPLATES[what], context, status=status)


def _own_first(request: HttpRequest) -> list[list[StoredPolicy]]:
    groups = newest_first(library.listed(request.user))
    return sorted(groups, key=lambda group: group[0].owner_id != request.user.pk)


def _begin(request: HttpRequest, form: AskForm, model: ModelInfo) -> PolicyRun | None:
    try:
        chosen = [of_stored(request.user, policy) for policy in _in_order(request, form)]
        if space := form.asked.get("space"):
            starting.refuse_lent_space(request.user, chosen[0], space)
        return starting.start(_who(request), form.kind, chosen, form.asked, model)
    except InferenceError as error:
        form.add_error(None, error.message)
        return None


def _in_order(request: HttpRequest, form: AskForm) -> list[StoredPolicy]:
    """As they were chosen on the page."""
    order = {text: place for place, text in enumerate(request.POST.getlist("policies"))}
    return sorted(form.cleaned_data["policies"], key=lambda policy: order.get(str(policy.pk), 99))


@require_POST
def run_estimate(request: HttpRequest, kind: str) -> JsonResponse:
    """What the form as it stands would take. Changes nothing."""
    if kind not in FORMS:
        raise Http404
    model = served(request).model
    form = FORMS[kind](request.POST, user=request.user, model=model)
    problems: list[str] = []
    if form.is_valid():
        try:
            chosen = [of_stored(request.user, policy) for policy in _in_order(request, form)]
            found = starting.expected(form.kind, chosen, form.asked, model)
            facts = {"completions": found.completions, "tokens": found.tokens, "seconds": found.seconds}
            return JsonResponse(facts | {"problems": [], "trials": form.asked.get("trials")})
        except InferenceError as error:
            problems = [error.message]
    return JsonResponse({"problems": problems or [str(e) for errors in form.errors.values() for e in errors]})


# ---- one run ----


@require_GET
@never_cache
def run_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    run = _own(request, pk)
    ids = [entry["policy_id"] for entry in run.policies if entry.get("policy_id")]
    there = {str(pk) for pk in library.listed(request.user).filter(pk__in=ids).values_list("pk", flat=True)}
    context = {"run": run, "job": run.job, "read": reading_of(run), "again": _again_url(run), "there": there}
    if run.kind == PolicyRun.Kind.REPLAY:
        context["first"] = PolicyRun.objects.owned_by(request.user).filter(pk=run.asked["of"]).first()
    return render(request, "policies/run.html", context)


def _again_url(run: PolicyRun) -> str:
    names: dict[str, str] = {PolicyRun.Kind.EVALUATE: "policies:evaluate_new", PolicyRun.Kind.TUNE: "policies:tune_new"}
    ids = "&".join(f"policy={entry['policy_id']}" for entry in run.policies if entry.get("policy_id"))
    return f"{reverse(names.get(run.kind, 'policies:run_new'))}?{ids}"


@require_GET
def run_trace(request: HttpRequest, pk: UUID) -> JsonResponse:
    """The traces as JSON, to keep or to look at with other programs."""
    run = _own(request, pk)
    traces = [result.get("trace") for result in (run.result or {}).get("results", [])]
    found = traces[0] if len(traces) == 1 else traces
    if not any(traces):
        raise Http404
    headers = {"Content-Disposition": f'attachment; filename="{_file(run)}-trace.json"'}
    return JsonResponse(found, safe=False, headers=headers, json_dumps_params={"ensure_ascii": False, "indent": 1})


@require_POST
def run_replay(request: HttpRequest, pk: UUID) -> HttpResponse:
    run = _own(request, pk)
    index = request.POST.get("index", "0")
    try:
        number = int(index) if index.isdecimal() and len(index) < 3 else 0
        return redirect(starting.replay_start(_who(request), run, number))
    except InferenceError as error:
        messages.error(request, error.message)
        return redirect(run)


@require_POST
def run_again(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The same once more with the same settings: for one that failed, or was cancelled."""
    run = _own(request, pk)
    try:
        chosen = [of_entry(request.user, entry) for entry in run.policies]
        model = ModelInfo("ready", run.model_id)
        return redirect(starting.start(_who(request), run.kind, chosen, run.asked, model))
    except InferenceError as error:
        messages.error(request, error.message)
        return redirect(run)


@require_POST
def run_best(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Keep a trial of a search as a policy: the best, or the one that is named."""
    run = _own(request, pk)
    named = request.POST.get("trial", "")
    try:
        made = save_trial(request.user, run, int(named) if named.isdecimal() and len(named) < 4 else None)
    except InferenceError as error:
        messages.error(request, error.message)
        return redirect(run)
    messages.success(request, f"{made} is a policy of yours now.")
    return redirect(made)


@require_GET
def run_export(request: HttpRequest, pk: UUID, ending: str) -> HttpResponse:
    run = _own(request, pk)
    if ending not in ("csv", "jsonl") or run.result is None:
        raise Http404
    text = exporting.as_csv(run) if ending == "csv" else exporting.as_jsonl(run)
    kind = "text/csv; charset=utf-8" if ending == "csv" else "application/x-ndjson; charset=utf-8"
    headers = {"Content-Disposition": f'attachment; filename="{_file(run)}.{ending}"'}
    return HttpResponse(text, content_type=kind, headers=headers)


@require_http_methods(["GET", "POST"])
def run_delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    run = _own(request, pk)
    if request.method == "GET":
        return render(request, "policies/run_delete.html", {"run": run})
    starting.run_cancel(run)
    run.delete()
    messages.success(request, f"“{run.title}” was deleted.")
    return redirect("policies:runs")


def _own(request: HttpRequest, pk: UUID) -> PolicyRun:
    mine = PolicyRun.objects.owned_by(request.user).select_related("job", "owner")
    found: PolicyRun = get_object_or_404(mine, pk=pk)
    return found


def _who(request: HttpRequest) -> Principal:
    return Principal(cast(User, request.user))


def _file(run: PolicyRun) -> str:
    return slugify(run.title)[:60] or "run"
