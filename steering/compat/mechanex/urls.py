from __future__ import annotations

from django.urls import include, path

from steering.compat.mechanex import models

app_name = "mechanex"
urlpatterns = [
    path("", include("steering.compat.mechanex.policy_urls")),
    path("graph", models.graph),
]
