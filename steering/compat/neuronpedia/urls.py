from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path

app_name = "neuronpedia"
urlpatterns: list[URLPattern | URLResolver] = [
    path("steer/", include("steering.compat.neuronpedia.steer.urls")),
]
