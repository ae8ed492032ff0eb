"""Training an autoencoder: the form with what it will take, one training live, and going on with one."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from steering.datasets.models import Dataset
from steering.features import training_estimate
from steering.features.training_forms import ARCHITECTURES, TOPK_FAMILY, WIDTHS, TrainForm, initial
from steering.features.training_models import Training
from steering.features.training_runs import training_go_on, training_start
from steering.jobs.models import Job
from steering.jobs.templatetags.durations import duration
from steering.workers.choice import served

View = Callable[..., HttpResponse]


def staff_only(view: View) -> View:
    """It takes the server's disk and hours of its time, and everyone sees what comes of it."""

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not getattr(request.user, "is_staff", False):
            return render(request, "features/train_denied.html", status=403)
        return view(request, *args, **kwargs)

    return checked


@require_http_methods(["GET", "POST"])
@never_cache
@staff_only
def train(request: HttpRequest) -> HttpResponse:
    found = served(request, (request.POST or request.GET).get("model", ""))
    model = found.model
    sent = request.method == "POST"
    form = TrainForm(
        request.POST if sent else None,
        request.FILES if sent else None,
        user=request.user,
        model=model,
        initial=initial(model),
    )
    if sent and model.state != "ready":
        form.add_error(None, model.problem or "The model is still loading. Try again in a moment.")
    if sent and form.is_valid():
        data = form.cleaned_data
        training = training_start(
            owner=request.user,
            model=model,
            name=data["name"],
            recipe=form.recipe(),
            datasets=tuple(data["datasets"]),
            file=data["file"],
            chats=data["chats"],
            licence=data["licence"],
            index=data["index"],
        )
        return redirect(training)
    context = {
        "form": form,
        "model": model,
        "models": found.models,
        "architectures": ARCHITECTURES,
        "topk_family": TOPK_FAMILY,
        "widths": WIDTHS,
        "datasets": Dataset.objects.visible_to(request.user).with_counts(),
        "chosen": request.POST.getlist("datasets"),
        "trainings": Training.objects.owned_by(request.user).select_related("job").defer("texts", "chats")[:20],
    }
    return render(request, "features/train.html", context, status=400 if sent else 200)


@require_GET
@never_cache
@staff_only
def estimate(request: HttpRequest) -> JsonResponse:
    """{"says": a sentence}, for what the form holds now."""
    model = served(request, request.GET.get("model", "")).model
    number = {name: _number(request.GET.get(name, "")) for name in ("layer", "width", "steps", "batch", "chats")}
    tokens = training_estimate.tokens_of(
        pairs=_number(request.GET.get("pairs", "")),
        characters=_number(request.GET.get("characters", "")),
        chats=number["chats"],
    )
    if not tokens or not number["steps"] or not number["width"]:
        return JsonResponse({"says": "Choose what to train on."})
    seconds = training_estimate.seconds(model, tokens=tokens, **number)
    seen = number["steps"] * number["batch"] / tokens
    times = "part of the text" if seen < 0.95 else f"the text {seen:.1f} times" if seen >= 1.05 else "the text once"
    return JsonResponse(
        {"says": f"About {duration(seconds)} on this model’s device; sees {times} (about {tokens:,} tokens)."}
    )


@require_GET
@never_cache
@staff_only
def training(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    rows = Training.objects.owned_by(request.user).select_related("job").defer("texts", "chats")
    found = get_object_or_404(rows, pk=pk)
    facts: dict[str, Any] = found.facts or (found.job.facts if found.job else {})
    job = found.job
    # of a job that was gone on with, the new curve is the one to show
    if job and (job.is_active or job.state != Job.State.SUCCEEDED) and job.facts:
        facts = job.facts
    context = {
        "training": found,
        "job": job,
        "facts": facts,
        "from_step": facts.get("step") or found.trained.get("steps", 0),
        "figures": figures_of(found.facts),
        "recipe": recipe_of(found),
        "there": any(source.id == found.source for source in served(request).model.sources),
    }
    return render(request, "features/training.html", context)


@require_POST
@staff_only
def go_on(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    found = get_object_or_404(Training.objects.owned_by(request.user).select_related("job"), pk=pk)
    if found.cut_off:
        training_go_on(found)
    else:
        messages.info(request, "This training runs, or has taken all its steps. There is nothing to go on with.")
    return redirect(found)


def figures_of(facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(title, value, what it means), of a finished training."""
    said = [
        ("explained_variance", "Explained variance", "{:.1%}", "of held-out activations"),
        ("l0", "L0", "{:.1f}", "features on at a token"),
        ("dead", "Dead", "{:.1%}", "features that no longer fire"),
        ("loss_recovered", "Loss recovered", "{:.1%}", "of the harm of zeros, when spliced in"),
        ("loss_recovered_from_mean", "Against the mean", "{:.1%}", "of the harm of the mean activation"),
    ]
    return [
        (title, form.format(facts[name]), meaning)
        for name, title, form, meaning in said
        if isinstance(facts.get(name), int | float)
    ]


def recipe_of(found: Training) -> list[tuple[str, str]]:
    recipe, data = found.recipe, found.data
    names = {key: name for key, name, _ in ARCHITECTURES}
    topk = recipe.get("architecture") in TOPK_FAMILY
    rows = [
        ("Model", found.model_id),
        ("Layer", str(recipe.get("layer"))),
        ("Architecture", names.get(recipe.get("architecture", ""), "")),
        ("Features", f"{recipe.get('width', 0):,}"),
        ("On at a token", f"{recipe.get('sparsity', 0):g}")
        if topk
        else ("Penalty", f"{recipe['sparsity']:g}" if recipe.get("sparsity") else "sae-lens’s own"),
        ("Steps", f"{recipe.get('steps', 0):,} of {recipe.get('batch', 0):,} tokens"),
        ("Learning rate", f"{recipe['learning_rate']:g}" if recipe.get("learning_rate") else "by width and batch"),
        ("Seed", str(recipe.get("seed", 0))),
    ]
    for dataset in data.get("datasets", []):
        rows.append(("Dataset", f"{dataset['name']}, version {dataset['version']}"))
    if file := data.get("file"):
        rows.append(("File", f"{file['name']}, {file['characters']:,} characters"))
    if data.get("licence"):
        rows.append(("Licence", data["licence"]))
    if data.get("chats"):
        rows.append(("Conversations", f"{data['chats']:,}, written by the model"))
    return rows


def _number(text: str) -> int:
    return min(int(text), 10**10) if text.isdecimal() and len(text) < 12 else 0
