"""Who may look at an experiment: its owner, and whoever is signed in and has its link."""

from __future__ import annotations

import hmac
from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest
from django.shortcuts import get_object_or_404

from steering.experiments.models import Experiment

NAME = "share"


def readable(request: HttpRequest, pk: UUID) -> Experiment:
    """Raises Http404 for all others."""
    experiment: Experiment = get_object_or_404(Experiment.objects.select_related("owner"), pk=pk)
    given = request.GET.get(NAME, "")
    by_link = bool(experiment.share) and hmac.compare_digest(given.encode(), str(experiment.share).encode())
    if experiment.owner_id != request.user.pk and not by_link:
        raise Http404
    return experiment


def own(request: HttpRequest, pk: UUID) -> Experiment:
    found: Any = get_object_or_404(Experiment.objects.owned_by(request.user), pk=pk)
    return found
