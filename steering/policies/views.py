"""Pages of policies: the list, writing one, one policy, its versions. Strangers get a 404 for what is not theirs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from inference.errors import InferenceError
from inference.types import ModelInfo
from steering.naming import id_in, next_version
from steering.policies import library
from steering.policies.content import as_text
from steering.policies.editor import FORM, JSON, Editor
from steering.policies.forms import CloneForm, DescriptionForm
from steering.policies.models import PolicyRun, StoredPolicy
from steering.policies.words import call_of, facts_of, sentence_of
from steering.workers.choice import served

LATELY = 5  # runs on the list's page


@require_GET
@never_cache
def policy_list(request: HttpRequest) -> HttpResponse:
    """One line per policy, its newest version; the page of a version leads to the others."""
    lines = [_line(group) for group in newest_first(library.listed(request.user))]
    context = {
        "own": [line for line in lines if line["policy"].owner_id == request.user.pk],
        "others": [line for line in lines if line["policy"].owner_id != request.user.pk],
        "runs": PolicyRun.objects.owned_by(request.user).select_related("job").defer("result")[:LATELY],
        "model": served(request).model,
    }
    return render(request, "policies/list.html", context)


def _line(versions: list[StoredPolicy]) -> dict[str, Any]:
    return {"policy": versions[0], "versions": versions, "says": sentence_of(versions[0].parsed)}


def newest_first(rows: Iterable[StoredPolicy]) -> list[list[StoredPolicy]]:
    """The versions of each policy, newest first; policies in the order of their names."""
    groups: dict[tuple[str, int], list[StoredPolicy]] = {}
    for policy in sorted(rows, key=lambda policy: policy.order, reverse=True):
        groups.setdefault((policy.name, policy.owner_id or 0), []).append(policy)
    return [groups[key] for key in sorted(groups)]


# ---- writing one ----


@require_http_methods(["GET", "POST"])
@never_cache
def policy_new(request: HttpRequest) -> HttpResponse:
    model = served(request).model
    if request.method == "POST":
        editor = Editor.posted(request.user, model, request.POST)
    else:
        editor = Editor(request.user, model, *_beginning(request))
        _show_as_asked(request, editor)
    saved = _switched_or_saved(request, editor, model)
    return redirect(saved) if saved else _drawn(request, editor)


def _beginning(request: HttpRequest) -> tuple[dict[str, Any], dict[str, str]]:
    """What a new policy begins as: another one (`from`), a preset, or nothing."""
    if wanted := request.GET.get("from"):
        policy = _listed(request, id_in(wanted))
        library_name = policy.name if policy.owner_id != request.user.pk else f"{policy.name[:35]}-copy"
        return policy.content, {"name": library_name, "description": policy.description}
    return {}, {}


def _show_as_asked(request: HttpRequest, editor: Editor) -> None:
    if request.GET.get("view") == JSON:
        editor.switch(JSON)


def _switched_or_saved(
    request: HttpRequest, editor: Editor, model: ModelInfo, shared: bool = False
) -> StoredPolicy | None:
    """The new version, where that was asked for and nothing is wrong."""
    if request.method != "POST":
        return None
    if (view := request.POST.get("switch")) in (FORM, JSON):
        editor.switch(view)
        return None
    if not editor.valid():
        return None
    try:
        return library.save(request.user, content=editor.content, model=model, shared=shared, **editor.about)
    except InferenceError as error:
        editor.refuse(error)
        return None


def _drawn(request: HttpRequest, editor: Editor, policy: StoredPolicy | None = None) -> HttpResponse:
    context = {"editor": editor, "policy": policy, "takes": {row["section"].name: row for row in editor.sections()}}
    status = 400 if editor.errors and request.method == "POST" and "switch" not in request.POST else 200
    return render(request, "policies/editor.html", context, status=status)


@require_http_methods(["GET", "POST"])
@never_cache
def policy_version(request: HttpRequest, pk: UUID) -> HttpResponse:
    """The same policy with other words, as a new version. The one that is there stays as it is."""
    policy = _own(request, pk)
    model = served(request).model
    if request.method == "POST":
        editor = Editor.posted(request.user, model, request.POST)
        editor.about["name"] = policy.name
    else:
        same = [other.version for other in library.versions_of(request.user, policy)]
        about = {"name": policy.name, "version": next_version(same), "description": policy.description}
        editor = Editor(request.user, model, policy.content, about)
        _show_as_asked(request, editor)
    saved = _switched_or_saved(request, editor, model, policy.shared)
    return redirect(saved) if saved else _drawn(request, editor, policy)


# ---- one policy ----


@require_GET
def policy_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    policy = _listed(request, pk)
    model = served(request).model
    name = library.name_for(request.user, policy)
    context = {
        "policy": policy,
        "says": sentence_of(policy.parsed),
        "facts": facts_of(policy.parsed),
        "json": as_text(policy.content),
        "versions": library.versions_of(request.user, policy),
        "call": call_of(name, request.build_absolute_uri("/api/v1")),
        "call_name": name,
        "mine": policy.owner_id == request.user.pk,
        "usable": not policy.model_id or policy.usable_on(model),
        "vector": policy.vectors.filter(owner=request.user.pk).first() or policy.vectors.filter(owner=None).first(),
        "runs": _runs_with(request, policy),
        "model": model,
    }
    return render(request, "policies/detail.html", context)


def _runs_with(request: HttpRequest, policy: StoredPolicy) -> list[PolicyRun]:
    """The last of one's own runs in which it took part."""
    recent = PolicyRun.objects.owned_by(request.user).select_related("job").defer("result")[:200]
    return [run for run in recent if any(e.get("policy_id") == str(policy.pk) for e in run.policies)][:LATELY]


@require_http_methods(["GET", "POST"])
def policy_edit(request: HttpRequest, pk: UUID) -> HttpResponse:
    policy = _own(request, pk)
    form = DescriptionForm(request.POST or None, initial={"description": policy.description})
    if request.method == "POST" and form.is_valid():
        try:
            policy.describe(form.cleaned_data["description"].strip())
            return redirect(policy)
        except InferenceError as error:
            form.add_error("description", error.message)
    return render(request, "policies/edit.html", {"policy": policy, "form": form})


@require_POST
def policy_share(request: HttpRequest, pk: UUID) -> HttpResponse:
    """shared=1 shares, anything else ends it at once."""
    policy = _own(request, pk)
    library.share(policy, request.POST.get("shared") == "1")
    said = "Everyone here can run it now." if policy.shared else "From now on only you can run it."
    messages.success(request, f"{policy}: {said}")
    return redirect(policy)


@require_POST
def policy_clone(request: HttpRequest, pk: UUID) -> HttpResponse:
    policy = _listed(request, pk)
    form = CloneForm(request.POST)
    try:
        name = form.cleaned_data["name"].strip() if form.is_valid() else ""
        made = library.clone(request.user, policy, name, served(request).model)
    except InferenceError as error:
        messages.error(request, error.message)
        return redirect(policy)
    messages.success(request, f"{made} is yours now. Change it in a new version.")
    return redirect(made)


@require_http_methods(["GET", "POST"])
def policy_delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    policy = _own(request, pk)
    if request.method == "GET":
        return render(request, "policies/delete.html", {"policy": policy})
    policy.delete()
    messages.success(request, f"{policy} was deleted. Runs with it are kept.")
    return redirect("policies:list")


def _listed(request: HttpRequest, pk: UUID) -> StoredPolicy:
    return get_object_or_404(library.listed(request.user), pk=pk)


def _own(request: HttpRequest, pk: UUID) -> StoredPolicy:
    return get_object_or_404(StoredPolicy.objects.owned_by(request.user).select_related("owner"), pk=pk)
