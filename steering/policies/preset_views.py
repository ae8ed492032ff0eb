"""Presets of policies: published for oneself or for everyone, and cloned."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from inference.errors import InferenceError
from inference.policies.schema import Policy
from steering.policies import library
from steering.policies.content import as_text
from steering.policies.forms import PublishForm
from steering.policies.models import PolicyPreset
from steering.policies.words import facts_of, sentence_of


@require_GET
def preset_list(request: HttpRequest) -> HttpResponse:
    tag = request.GET.get("tag", "")[: library.MAX_TAG]
    lines: list[dict[str, Any]] = [
        {"preset": one, "says": sentence_of(Policy.parse(one.content))} for one in library.presets(request.user)
    ]
    if tag:
        lines = [line for line in lines if tag in line["preset"].tags]
    context = {
        "own": [line for line in lines if line["preset"].owner_id == request.user.pk],
        "others": [line for line in lines if line["preset"].owner_id != request.user.pk],
        "tag": tag,
    }
    return render(request, "policies/presets.html", context)


@require_GET
def preset_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    preset = _visible(request, pk)
    policy = Policy.parse(preset.content)
    context = {
        "preset": preset,
        "says": sentence_of(policy),
        "facts": facts_of(policy),
        "json": as_text(preset.content),
        "mine": preset.owner_id == request.user.pk,
    }
    return render(request, "policies/preset.html", context)


@require_http_methods(["GET", "POST"])
def preset_publish(request: HttpRequest, pk: UUID) -> HttpResponse:
    policy = get_object_or_404(library.listed(request.user), pk=pk)
    first = {"name": policy.name, "description": policy.description, "visibility": PolicyPreset.Visibility.PRIVATE}
    form = PublishForm(request.POST if request.method == "POST" else None, initial=first)
    if request.method == "POST" and form.is_valid():
        try:
            preset = library.publish(request.user, content=policy.content, **form.cleaned_data)
            who = "Everyone here can clone it." if preset.is_public else "Only you see it."
            messages.success(request, f"“{preset}” is published. {who}")
            return redirect("policies:preset", preset.pk)
        except InferenceError as error:
            form.add_error("name" if error.code == "preset_name" else None, error.message)
    return render(request, "policies/publish.html", {"policy": policy, "form": form})


@require_POST
def preset_clone(request: HttpRequest, pk: UUID) -> HttpResponse:
    preset = _visible(request, pk)
    try:
        made = library.clone_preset(request.user, preset)
    except InferenceError as error:
        messages.error(request, error.message)
        return redirect("policies:preset", preset.pk)
    messages.success(request, f"{made} is yours now. Change it in a new version.")
    return redirect(made)


@require_http_methods(["GET", "POST"])
def preset_delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    preset = get_object_or_404(PolicyPreset.objects.owned_by(request.user), pk=pk)
    if request.method == "GET":
        return render(request, "policies/preset_delete.html", {"preset": preset})
    preset.delete()
    messages.success(request, f"“{preset}” was deleted. Policies that were cloned from it are kept.")
    return redirect("policies:presets")


def _visible(request: HttpRequest, pk: UUID) -> PolicyPreset:
    return get_object_or_404(library.presets(request.user), pk=pk)
