from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.text import slugify
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from inference.errors import InferenceError
from inference.types import MOST_ATTRIBUTED_TOKENS, ModelInfo
from steering.access.denied import Denied
from steering.accounts.sharing import NAME, link_to, own, readable, set_link
from steering.attribution import exporting, reading, running
from steering.attribution.examples import BY_KEY, EXAMPLES
from steering.attribution.forms import DEFAULT_STEPS, MAX_PROMPT, METHODS, METRICS, SITES, QuestionForm, initial_of
from steering.attribution.models import Attribution, Part
from steering.attribution.words import UNITS, method_words, sentence_of
from steering.features.labels import best_labels
from steering.jobs.models import Job
from steering.naming import id_in
from steering.refusals import need, parse_json
from steering.workers.choice import served

PAGE = 30
STANDARD = {"metric": "logit_difference", "method": "patching", "steps": DEFAULT_STEPS,
            "sites": ["resid_pre", "attn_out", "mlp_out", "z"]}  # fmt: skip


@require_GET
@never_cache
def attribution_list(request: HttpRequest) -> HttpResponse:
    mine = Attribution.objects.owned_by(request.user)
    page = Paginator(mine, PAGE).get_page(request.GET.get("page"))
    rows = [{"attribution": row, "question": row.settings, "parts": row.newest(whole=False)} for row in page]
    return render(request, "attribution/list.html", {"page": page, "rows": rows, "examples": EXAMPLES})


# ---- asking ----


@require_http_methods(["GET", "POST"])
@never_cache
def attribution_new(request: HttpRequest) -> HttpResponse:
    model = served(request).model
    if request.method == "POST":
        form = QuestionForm(request.POST, model=model)
        if form.is_valid() and (begun := _begin(request, form, model)):
            return redirect(begun)
    else:
        form = QuestionForm(model=model, initial=_initial(request))
    context = {
        "form": form, "model": model, "examples": EXAMPLES, "metrics": METRICS, "methods": METHODS, "sites": SITES,
        "chosen": form["sites"].value() or [], "most": MOST_ATTRIBUTED_TOKENS,
    }  # fmt: skip
    return render(request, "attribution/new.html", context, status=400 if form.errors else 200)


def _initial(request: HttpRequest) -> dict[str, Any]:
    """What a new question begins as: another one's (`from`), an example, or nothing."""
    if source := request.GET.get("from", ""):
        attribution = readable(Attribution, request, id_in(source))
        return initial_of(running.question_of(attribution), attribution.name)
    example = BY_KEY.get(request.GET.get("example", ""))
    if example is None:
        return dict(STANDARD)
    return STANDARD | {
        "name": example.title, "clean_prompt": example.clean, "corrupted_prompt": example.corrupted,
        "metric": example.metric, "targets": "\n".join(example.targets), "against": "\n".join(example.against),
    }  # fmt: skip


def _begin(request: HttpRequest, form: QuestionForm, model: ModelInfo) -> Attribution | None:
    assert form.question is not None
    try:
        return running.attribution_start(
            owner=request.user, name=form.cleaned_data["name"], question=form.question, model=model
        )
    except (InferenceError, Denied) as error:
        form.add_error(None, error.message)
        return None


@require_POST
def attribution_tokens(request: HttpRequest) -> JsonResponse:
    """The tokens of both prompts and which stand for each other. Changes nothing; trouble is part of the answer."""
    try:
        asked = parse_json(request.body)
        need(isinstance(asked, dict), "bad_json", "Reload the page.")
        texts = {name: asked.get(name, "") for name in ("clean", "corrupted")}
        for text in texts.values():
            need(isinstance(text, str) and len(text) <= MAX_PROMPT, "too_long", "A prompt is too long. Shorten it.")
        targets = [text for text in asked.get("targets") or () if isinstance(text, str)][:20]
        found = reading.read(**texts, chat=bool(asked.get("chat")), targets=targets, model=served(request).name)
    except InferenceError as error:
        return JsonResponse({"problem": error.message, "again": error.retry_after})
    return JsonResponse(found)


# ---- one attribution ----


@require_GET
@never_cache
def attribution_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    attribution = readable(Attribution, request, pk)
    question = running.question_of(attribution)
    parts, found = attribution.newest(whole=False), attribution.found()
    mine = attribution.owner_id == request.user.pk
    model = served(request).model
    main = parts.get(Part.Kind.ATTRIBUTE)
    context = {
        "attribution": attribution, "question": question, "parts": parts, "mine": mine, "main": main,
        "says": sentence_of(question), "method": method_words(question),
        "metric": METRICS[question.metric][0], "unit": UNITS[question.metric],
        "suffix": "" if mine else f"?{NAME}={attribution.share}",
        "link": link_to(request, attribution),
        "same_model": (model.id, model.revision) == (attribution.model_id, attribution.revision),
        "sources": [source for source in model.sources if not source.problem], "model": model,
        "steer_url": reverse("playground:home"),
        "data": _data(request.user, attribution, found) if Part.Kind.ATTRIBUTE in found else None,
    }  # fmt: skip
    for kind in Part.Kind:
        context[f"part_{kind.value}"] = parts.get(kind)
    return render(request, "attribution/detail.html", context)


def _data(user: Any, attribution: Attribution, parts: dict[str, Part]) -> dict[str, Any]:
    """What the scripts draw. An exact patching finds the heat maps anew: only what it adds is sent."""
    found: dict[str, Any] = {kind: part.findings for kind, part in parts.items()}
    if exact := found.get(Part.Kind.EXACT):
        found[Part.Kind.EXACT] = {name: exact[name] for name in ("patched", "pearson", "spearman", "by_site")}
    settings = {kind: part.settings for kind, part in parts.items()}
    about = _about_features(user, attribution, found[Part.Kind.FEATURES]) if Part.Kind.FEATURES in found else {}
    return {"name": attribution.name, "question": attribution.settings, "found": found, "settings": settings} | about


def _about_features(user: Any, attribution: Attribution, found: dict[str, Any]) -> dict[str, Any]:
    """What people call the features, and where a feature's page is: that of 0 stands for all."""
    indices = {row["index"] for row in (*found["features"], *found["output"])}
    labels = best_labels(user, attribution.model_id, found["source"], indices)
    url = reverse("features:feature", args=[found["source"], 0])
    return {"labels": {index: label.text for index, label in labels.items()}, "feature_url": url}


@require_GET
def attribution_export(request: HttpRequest, pk: UUID, ending: str) -> HttpResponse:
    attribution = readable(Attribution, request, pk)
    headers = {"Content-Disposition": f'attachment; filename="{slugify(attribution.name) or "attribution"}.{ending}"'}
    if ending == "json":
        found = exporting.as_json(attribution)
        return JsonResponse(found, headers=headers, json_dumps_params={"ensure_ascii": False, "indent": 1})
    text = "".join(exporting.as_csv(attribution))
    return HttpResponse(text, content_type="text/csv; charset=utf-8", headers=headers)


# ---- changing it ----


@require_POST
def attribution_part(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Find one more thing out. What is refused is said on the page it came from."""
    attribution = own(Attribution, request, pk)
    try:
        _part(attribution, request.POST)
    except (InferenceError, Denied) as error:
        messages.error(request, error.message)
    return redirect(f"{attribution.get_absolute_url()}#{slugify(request.POST.get('kind', ''))}")


def _part(attribution: Attribution, asked: Any) -> None:
    """Raises InferenceError, Denied."""
    which = asked.get("which", "clean")
    match asked.get("kind", ""):
        case Part.Kind.ATTRIBUTE:
            running.part_start(attribution, running.question_of(attribution), source="attribution")
        case Part.Kind.EXACT:
            running.verify(attribution, top=_whole(asked.get("top", ""), 20), each=asked.get("of") == "each")
        case Part.Kind.FEATURES:
            running.features(
                attribution,
                source_id=asked.get("source", "")[:300],
                baseline="zero" if asked.get("baseline") == "zero" else "corrupted",
                steps=_whole(asked.get("steps", ""), 0),
            )
        case Part.Kind.LENS:
            running.lens(attribution, which=which)
        case Part.Kind.DIRECT:
            running.direct(attribution, which=which)
        case other:
            need(False, "kind", f"“{str(other)[:40]}” is not a part of an attribution. Reload the page.")


def _whole(text: str, default: int) -> int:
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 6 else default


@require_POST
def attribution_rename(request: HttpRequest, pk: UUID) -> HttpResponse:
    attribution = own(Attribution, request, pk)
    name = " ".join(request.POST.get("name", "").replace("\x00", "").split())[:120]
    if not name:
        messages.error(request, "An attribution needs a name. Write one.")
        return redirect(attribution)
    attribution.name = name
    attribution.save(update_fields=["name"])
    return redirect(attribution)


@require_POST
def attribution_share(request: HttpRequest, pk: UUID) -> HttpResponse:
    return set_link(request, own(Attribution, request, pk))


@require_http_methods(["GET", "POST"])
def attribution_delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    attribution = own(Attribution, request, pk)
    if request.method == "GET":
        return render(request, "attribution/delete.html", {"attribution": attribution})
    running.attribution_cancel(attribution)
    attribution.delete()
    messages.success(request, f"“{attribution.name}” was deleted.")
    return redirect("attribution:list")


# ---- the model's map ----


@require_http_methods(["GET", "POST"])
@never_cache
def model_map(request: HttpRequest) -> HttpResponse:
    """GET shows the map, and the page asks for one that there is not; POST starts it."""
    chosen = served(request)
    if request.method == "POST":
        try:
            running.map_start(owner=request.user, model=chosen.model, name=chosen.name)
        except (InferenceError, Denied) as error:
            messages.error(request, error.message)
        return redirect("attribution:map")
    found = running.map_of(chosen.model) if chosen.model.id else None
    job = None if found else running.map_job(request.user, chosen.model)
    if job is not None and job.state == Job.State.SUCCEEDED:
        job = None  # of a revision that is gone
    context = {"model": chosen.model, "found": found, "job": job}
    return render(request, "attribution/map.html", context)
