"""Every address, one line per app."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from webapp import errors, frame

urlpatterns = [
    path("", include("steering.playground.urls")),
    path("accounts/", include("steering.accounts.urls")),
    path("admin/", admin.site.urls),
    path("datasets/", include("steering.datasets.urls")),
    path("jobs/", include("steering.jobs.urls")),
    path("status.json", frame.status, name="status"),
    path("vectors/", include("steering.vectors.urls")),
]

handler400 = errors.bad_request
handler403 = errors.forbidden
handler404 = errors.not_found
handler500 = errors.server_error
