from __future__ import annotations

from django.urls import path

from steering.compat.mechanex import models

app_name = "mechanex"
urlpatterns = [
    path("graph", models.graph),
]
