"""Things shared by link: their owner may look, and whoever is signed in and has the link. They are in nobody's list."""

from __future__ import annotations

import hmac
import secrets
from typing import Any, Self, TypeVar
from uuid import UUID

from django.contrib import messages
from django.db import models
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect

from steering.accounts.ownership import OwnedQuerySet

NAME = "share"


class SharedQuerySet(OwnedQuerySet):
    def visible_to(self, user: Any) -> Self:
        """Nobody else's is in anyone's list: who has a link comes by the link."""
        return self.owned_by(user)


class Shared(models.Model):
    """Whoever knows `share` and is signed in may read."""

    share = models.CharField(max_length=43, null=True, blank=True, unique=True, editable=False)

    class Meta:
        abstract = True


S = TypeVar("S", bound=Shared)


def readable(model: type[S], request: HttpRequest, pk: UUID) -> S:
    """Raises Http404 for all others."""
    found: Any = get_object_or_404(model._default_manager.select_related("owner"), pk=pk)
    given = request.GET.get(NAME, "")
    by_link = bool(found.share) and hmac.compare_digest(given.encode(), str(found.share).encode())
    if found.owner_id != request.user.pk and not by_link:
        raise Http404
    return found


def own(model: type[S], request: HttpRequest, pk: UUID) -> S:
    """Raises Http404 for all others."""
    found: S = get_object_or_404(model._default_manager, owner=request.user.pk, pk=pk)
    return found


def set_link(request: HttpRequest, found: Any) -> HttpResponse:
    """shared=1 makes a link, a new one each time; anything else ends every link at once."""
    found.share = secrets.token_urlsafe(32) if request.POST.get("shared") == "1" else None
    found.save(update_fields=["share"])
    said = "Everyone here who has the link may read it." if found.share else "From now on only you can read it."
    messages.success(request, said)
    return redirect(found)


def link_to(request: HttpRequest, found: Any) -> str:
    return request.build_absolute_uri(f"{found.get_absolute_url()}?{NAME}={found.share}")
