from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils.text import slugify
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from inference.errors import InferenceError
from inference.types import ModelInfo
from steering.access.denied import Denied
from steering.accounts.sharing import NAME, link_to, own, readable, set_link
from steering.datasets.behaviours import WORTH
from steering.experiments import defaults, exporting, runner
from steering.experiments.estimate import Estimate, estimate
from steering.experiments.forms import ExperimentForm, initial_of
from steering.experiments.models import Experiment
from steering.experiments.promoting import preset_of_cell
from steering.experiments.settings import Settings, vectors_of
from steering.experiments.words import sentence_of, warnings_of
from steering.naming import id_in
from steering.vectors.models import Vector
from steering.workers.choice import served

PAGE = 30
RECIPES = {
    "sweep": ("Sweep", "Every layer at every strength, as a map to look around in."),
    "find": ("Find a working point", "The best layer and dose by measurement, proved against chance and prompting."),
    "evaluate": ("Evaluate", "One layer and strength, measured in every way there is."),
}


@require_GET
@never_cache
def experiment_list(request: HttpRequest) -> HttpResponse:
    mine = Experiment.objects.owned_by(request.user).defer("findings", "settings")
    page = Paginator(mine, PAGE).get_page(request.GET.get("page"))
    vector = Vector.objects.visible_to(request.user).in_library_order().first()
    return render(request, "experiments/list.html", {"page": page, "recipes": RECIPES, "vector": vector})


# ---- new ----


@require_http_methods(["GET", "POST"])
def experiment_new(request: HttpRequest, recipe: str) -> HttpResponse:
    if recipe not in RECIPES:
        raise Http404
    model = served(request).model
    library = list(Vector.objects.visible_to(request.user).in_library_order())
    usable = [vector for vector in library if vector.usable_on(model)]
    if request.method == "POST":
        form = ExperimentForm(recipe, request.POST, user=request.user, model=model)
        if form.is_valid() and (begun := _begin(request, form, model)):
            return redirect(begun)
    else:
        form = ExperimentForm(recipe, user=request.user, model=model, initial=_initial(request, recipe, usable, model))
    title, says = RECIPES[recipe]
    context = {
        "form": form, "recipe": recipe, "title": title, "says": says, "model": model, "vectors": usable,
        "recipes": RECIPES, "chosen": {str(pk) for pk in form["vectors"].value() or ()},
        "operations": form["operations"].value() or ["add"], "beside": form["beside"].value() or [],
        "worth": WORTH, "note": _note(form, usable, model),
    }  # fmt: skip
    return render(request, "experiments/new.html", context)


def _note(form: ExperimentForm, usable: list[Vector], model: ModelInfo) -> str:
    """What is known of measuring the behaviour of the vector that is chosen."""
    chosen = {str(pk) for pk in form["vectors"].value() or ()}
    vector = next((v for v in usable if str(v.pk) in chosen), None)
    return defaults.about(vector, model).note if vector else ""


def _initial(request: HttpRequest, recipe: str, usable: list[Vector], model: ModelInfo) -> dict[str, Any]:
    """What a new experiment begins as: another one's settings (`from`), else the defaults of a vector."""
    source = request.GET.get("from", "")
    if source:
        experiment = readable(Experiment, request, id_in(source))
        if experiment.recipe == recipe:
            return initial_of(recipe, runner.settings_of(experiment), experiment.name)
    wanted = request.GET.get("vector", "")
    vector = next((v for v in usable if str(v.pk) == wanted), None) or next(iter(usable), None)
    if vector is None:
        return {}
    settings = _default(recipe, vector, model)
    given = {name: request.GET[name] for name in ("layer", "strength") if name in request.GET}
    return initial_of(recipe, settings) | given


def _default(recipe: str, vector: Vector, model: ModelInfo) -> Settings:
    if recipe == "evaluate":
        return defaults.evaluate_of(vector, model)
    return defaults.sweep_of(vector, model) if recipe == "sweep" else defaults.find_of(vector, model)


def _begin(request: HttpRequest, form: ExperimentForm, model: ModelInfo) -> Experiment | None:
    assert form.settings is not None
    try:
        return runner.experiment_start(
            owner=request.user, recipe=form.recipe, name=form.cleaned_data["name"], settings=form.settings, model=model
        )
    except (InferenceError, Denied) as error:
        form.add_error(None, error.message)
        return None


@require_POST
def experiment_estimate(request: HttpRequest, recipe: str) -> JsonResponse:
    """What the form as it stands would take, and what to be warned of. Changes nothing."""
    if recipe not in RECIPES:
        raise Http404
    model = served(request).model
    form = ExperimentForm(recipe, request.POST, user=request.user, model=model)
    if not form.is_valid() or form.settings is None:
        problems = [str(error) for errors in form.errors.values() for error in errors]
        return JsonResponse({"problems": problems, "warnings": []})
    found: Estimate = estimate(form.settings, model, _rate(request.user, model))
    facts = {"points": found.points, "tokens": found.tokens, "seconds": found.seconds}
    return JsonResponse(facts | {"problems": [], "warnings": warnings_of(form.settings)})


def _rate(user: Any, model: ModelInfo) -> float:
    """Tokens per second of this person's last experiment on the model."""
    done = Experiment.objects.owned_by(user).filter(model_id=model.id, state=Experiment.State.SUCCEEDED)
    for last in done.exclude(completion_tokens=0).defer("findings")[:1]:
        return 1.4 * last.completion_tokens / max(1.0, last.seconds or 0.0)
    return 0.0


# ---- one experiment ----


@require_GET
@never_cache
def experiment_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    experiment = readable(Experiment, request, pk)
    settings = runner.settings_of(experiment)
    names = dict(Vector.objects.filter(pk__in=vectors_of(settings)).values_list("pk", "name"))
    vectors = [names.get(UUID(vector), "a vector that is gone") for vector in vectors_of(settings)]
    mine = experiment.owner_id == request.user.pk
    suffix = "" if mine else f"?{NAME}={experiment.share}"
    data = {
        "recipe": experiment.recipe, "name": experiment.name, "settings": experiment.settings, "vectors": vectors,
        "status": experiment.status(), "mine": mine, "worth": WORTH,
    }  # fmt: skip
    context = {
        "experiment": experiment, "says": sentence_of(settings), "mine": mine, "suffix": suffix, "data": data,
        "recipe_name": RECIPES[experiment.recipe][0], "settings": settings, "vectors": vectors,
        "warnings": warnings_of(settings), "first_vector": vectors_of(settings)[0],
        "link": link_to(request, experiment),
    }  # fmt: skip
    return render(request, "experiments/detail.html", context)


@require_GET
@never_cache
def experiment_status(request: HttpRequest, pk: UUID) -> JsonResponse:
    return JsonResponse(readable(Experiment, request, pk).status())


@require_GET
@never_cache
def experiment_texts(request: HttpRequest, pk: UUID) -> JsonResponse:
    """The texts of one cell, each beside the base's."""
    experiment = readable(Experiment, request, pk)
    group = request.GET.get("group", "")[:120]
    base = {row["prompt"]: row for row in exporting.rows_of(experiment, _base_of(experiment, group))}
    rows = [row | {"base": base.get(row["prompt"])} for row in exporting.rows_of(experiment, group)]
    return JsonResponse({"group": group, "rows": rows})


def _base_of(experiment: Experiment, group: str) -> str:
    tuning = experiment.recipe == Experiment.Recipe.FIND and (group.startswith("L") or group == "tuning-base")
    return "tuning-base" if tuning else "base"


@require_GET
def experiment_export(request: HttpRequest, pk: UUID, ending: str) -> HttpResponse | StreamingHttpResponse:
    experiment = readable(Experiment, request, pk)
    name = f"{slugify(experiment.name) or 'experiment'}.{ending}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    if ending == "json":
        found = {"settings": experiment.settings, "findings": experiment.findings, "model": experiment.model_id}
        return JsonResponse(found, headers=headers, json_dumps_params={"ensure_ascii": False, "indent": 1})
    if ending not in ("csv", "jsonl"):
        raise Http404
    text = "".join(exporting.as_csv(experiment) if ending == "csv" else exporting.as_jsonl(experiment))
    kind = "text/csv; charset=utf-8" if ending == "csv" else "application/x-ndjson; charset=utf-8"
    return HttpResponse(text, content_type=kind, headers=headers)


# ---- changing it ----


@require_POST
def experiment_cancel(request: HttpRequest, pk: UUID) -> HttpResponse:
    experiment = own(Experiment, request, pk)
    if not runner.experiment_cancel(experiment):
        messages.info(request, f"“{experiment.name}” had already ended.")
    return redirect(experiment)


@require_POST
def experiment_resume(request: HttpRequest, pk: UUID) -> HttpResponse:
    experiment = own(Experiment, request, pk)
    try:
        if not runner.experiment_resume(experiment):
            messages.info(request, f"“{experiment.name}” runs, or has run to its end.")
    except (InferenceError, Denied) as error:
        messages.error(request, error.message)
    return redirect(experiment)


@require_POST
def experiment_share(request: HttpRequest, pk: UUID) -> HttpResponse:
    return set_link(request, own(Experiment, request, pk))


@require_POST
def experiment_preset(request: HttpRequest, pk: UUID) -> HttpResponse:
    experiment = own(Experiment, request, pk)
    try:
        preset = preset_of_cell(request.user, experiment, request.POST.get("group", ""))
    except InferenceError as error:
        messages.error(request, error.message)
        return redirect(experiment)
    messages.success(request, f"{preset} is a preset now. Programs can call it as a model.")
    return redirect(preset)


@require_http_methods(["GET", "POST"])
def experiment_delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    experiment = own(Experiment, request, pk)
    if request.method == "GET":
        return render(request, "experiments/delete.html", {"experiment": experiment})
    runner.experiment_cancel(experiment)
    experiment.delete()
    messages.success(request, f"“{experiment.name}” was deleted.")
    return redirect("experiments:list")
