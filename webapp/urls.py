"""Every address, one line per app."""

from __future__ import annotations

import importlib.util

from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from webapp import errors, frame

APPS = {"jobs": "jobs/", "datasets": "datasets/", "vectors": "vectors/", "playground": ""}

urlpatterns = [
    path("accounts/", include("steering.accounts.urls")),
    path("admin/", admin.site.urls),
    path("status.json", frame.status, name="status"),
    *(
        path(prefix, include(f"steering.{app}.urls"))
        for app, prefix in APPS.items()
        if app in settings.PRODUCT_APPS and importlib.util.find_spec(f"steering.{app}.urls")
    ),
]

handler400 = errors.bad_request
handler403 = errors.forbidden
handler404 = errors.not_found
handler500 = errors.server_error
