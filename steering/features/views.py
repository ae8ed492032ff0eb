from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from steering.workers.choice import served


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "features/home.html", {"sources": served(request).model.sources})
