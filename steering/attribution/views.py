from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from steering.attribution.models import Attribution


@require_GET
@never_cache
def attribution_list(request: HttpRequest) -> HttpResponse:
    return render(request, "attribution/list.html", {"page": Attribution.objects.owned_by(request.user)})
