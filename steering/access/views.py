"""Keys & usage. A secret is shown in the answer to the form that made it, and nowhere else: no redirect carries it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db import IntegrityError, transaction
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_GET, require_http_methods

from inference.types import ModelInfo
from steering import gateway
from steering.access import keys, usage
from steering.access.chart import stacked
from steering.access.forms import LIFETIMES, KeyForm
from steering.access.models import ApiKey, LedgerEntry, LedgerQuerySet
from steering.access.principal import Principal
from steering.access.snippets import chat_snippets, list_snippets
from steering.access.standing import uses_of
from steering.accounts.requests import PersonRequest

SPANS = (7, 30, 90)
SPLITS = {"model": "Model", "key": "Key"}
PLACEHOLDER = "YOUR_KEY"
ENDED_SHOWN = 20


@require_GET
@never_cache
def key_list(request: PersonRequest) -> HttpResponse:
    own = ApiKey.objects.owned_by(request.user)
    ended = own.exclude(revoked_at=None).order_by("-revoked_at")
    context = {
        "keys": own.filter(revoked_at=None),
        "ended": ended[:ENDED_SHOWN],
        "uses": uses_of(Principal(request.user)),
        "base": _base(request),
        **_usage(request, LedgerEntry.objects.owned_by(request.user)),
    }
    return render(request, "access/keys.html", context)


@require_http_methods(["GET", "POST"])
@never_cache
@sensitive_variables("secret")
def key_new(request: PersonRequest) -> HttpResponse:
    served = [info.id for info in _models() if info.id]
    form = KeyForm(request.POST or None, user=request.user, models=served, initial=KeyForm.DEFAULTS)
    if form.is_valid():
        try:
            with transaction.atomic():
                key, secret = keys.create_key(owner=request.user, **form.facts())
        except IntegrityError:  # the same form was sent twice at once
            form.add_error("name", "A key with this name was made a moment ago. Choose another name.")
        else:
            return _shown_once(request, key, secret, rotated=False)
    return render(request, "access/new.html", {"form": form, "lifetimes": LIFETIMES, "models": served})


@require_GET
@never_cache
def key_detail(request: PersonRequest, pk: UUID) -> HttpResponse:
    key = _own(request, pk)
    context = _snippets(request, key, PLACEHOLDER) | _usage(request, LedgerEntry.objects.filter(key=key))
    return render(request, "access/key.html", {"key": key, **context})


@require_http_methods(["GET", "POST"])
@never_cache
@sensitive_variables("secret")
def key_rotate(request: PersonRequest, pk: UUID) -> HttpResponse:
    """Asks first: whatever holds the old secret stops."""
    key = _live(request, pk)
    if key is None:
        return redirect("access:key", pk)
    if request.method == "GET":
        return render(request, "access/rotate.html", {"key": key})
    return _shown_once(request, key, keys.rotate_key(key), rotated=True)


@require_http_methods(["GET", "POST"])
@never_cache
def key_revoke(request: PersonRequest, pk: UUID) -> HttpResponse:
    """Asks first. The key stays in the list of those that ended, and its usage stays counted."""
    key = _live(request, pk)
    if key is None:
        return redirect("access:key", pk)
    if request.method == "GET":
        return render(request, "access/revoke.html", {"key": key})
    keys.revoke_key(key)
    messages.success(request, f"“{key.name}” was revoked. Nothing is let in with it any more.")
    return redirect("access:keys")


def _own(request: PersonRequest, pk: UUID) -> ApiKey:
    return get_object_or_404(ApiKey.objects.owned_by(request.user), pk=pk)


def _live(request: PersonRequest, pk: UUID) -> ApiKey | None:
    """The person's key, or None with a word about it where it was revoked before."""
    key = _own(request, pk)
    if key.revoked_at is None:
        return key
    messages.info(request, f"“{key.name}” was revoked before. Make a new key instead.")
    return None


@sensitive_variables("secret")
def _shown_once(request: PersonRequest, key: ApiKey, secret: str, *, rotated: bool) -> HttpResponse:
    context = {"key": key, "secret": secret, "rotated": rotated, **_snippets(request, key, secret)}
    return render(request, "access/secret.html", context)


# ---- snippets ----


def _base(request: PersonRequest) -> str:
    return request.build_absolute_uri("/v1")


@sensitive_variables("secret")
def _snippets(request: PersonRequest, key: ApiKey, secret: str) -> dict[str, Any]:
    model = _model_for(key)
    if "generate" in key.scopes:
        return {"snippets": chat_snippets(_base(request), secret, model), "model": model, "base": _base(request)}
    listed = next((scope for scope in ("vectors", "datasets", "jobs") if scope in key.scopes), "models")
    address = request.build_absolute_uri(f"/api/v1/{listed}/")
    return {"snippets": list_snippets(address, secret), "base": _base(request)}


def _models() -> tuple[ModelInfo, ...]:
    return gateway.models() or (gateway.model_info(),)


def _model_for(key: ApiKey) -> ModelInfo:
    """A served model that the key may use; else the first that it names, served or not."""
    allowed = {id.lower() for id in key.models}
    models = [info for info in _models() if info.id and (not allowed or info.id.lower() in allowed)]
    if models:
        return models[0]
    return ModelInfo("loading", id=key.models[0] if key.models else "")


# ---- usage ----


def _usage(request: PersonRequest, entries: LedgerQuerySet) -> dict[str, Any]:
    span = next((days for days in SPANS if request.GET.get("days") == str(days)), 30)
    split = request.GET.get("by") if request.GET.get("by") in SPLITS else "model"
    found = usage.lines(entries, span)
    points = [(line.day, line.short_model if split == "model" else line.key_name, line.tokens) for line in found]
    return {
        "span": span,
        "spans": SPANS,
        "split": split,
        "splits": SPLITS,
        "chart": stacked(points, usage.last_days(span)),
        "by_day": usage.totals(reversed(found), lambda line: line.day),
        "by_model_and_key": sorted(
            usage.totals(found, lambda line: (line.short_model, line.key_name)), key=lambda total: -total.tokens
        ),
        "total": next(iter(usage.totals(found, lambda line: None)), None),
    }
