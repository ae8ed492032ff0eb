from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from steering.behaviors import library
from steering.workers.choice import served


@require_GET
def behavior_list(request: HttpRequest) -> HttpResponse:
    rows = list(library.listed(request.user))
    return render(request, "behaviors/list.html", {"rows": rows, "model": served(request).model})
