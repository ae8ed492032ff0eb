"""The page on which the API can be read and tried, with the reader's own session."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET


@require_GET
def page(request: HttpRequest) -> HttpResponse:
    return render(request, "api/docs.html", {"base": request.build_absolute_uri("/").rstrip("/")})
