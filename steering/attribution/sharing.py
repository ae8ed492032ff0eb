"""Who may look at an attribution: its owner, and whoever is signed in and has its link."""

from __future__ import annotations

import hmac
from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest
from django.shortcuts import get_object_or_404

from steering.attribution.models import Attribution

NAME = "share"


def readable(request: HttpRequest, pk: UUID) -> Attribution:
    """Raises Http404 for all others."""
    found: Attribution = get_object_or_404(Attribution.objects.select_related("owner"), pk=pk)
    given = request.GET.get(NAME, "")
    by_link = bool(found.share) and hmac.compare_digest(given.encode(), str(found.share).encode())
    if found.owner_id != request.user.pk and not by_link:
        raise Http404
    return found


def own(request: HttpRequest, pk: UUID) -> Attribution:
    found: Any = get_object_or_404(Attribution.objects.owned_by(request.user), pk=pk)
    return found
