"""Below /v1, before OpenAI's addresses."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path

from steering.compat.neuronpedia import activations, status, utilities

app_name = "neuronpedia"
urlpatterns: list[URLPattern | URLResolver] = [
    path("activation/single", activations.single),
    path("activation/single-batch", activations.single_batch),
    path("activation/all", activations.everything),
    path("activation/all-batch", activations.everything_batch),
    path("activation/topk-by-token", activations.top),
    path("activation/topk-by-token-batch", activations.top_batch),
    path("activation/source", activations.source),
    path("steer/", include("steering.compat.neuronpedia.steer.urls")),
    path("tokenize", utilities.tokenize),
    path("util/sae-topk-by-decoder-cossim", utilities.nearest),
    path("util/sae-vector", utilities.vector),
    path("capabilities", status.capabilities),
]
