"""Below /v1, before OpenAI's addresses."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path

from steering.compat.neuronpedia import activations, status, utilities

app_name = "neuronpedia"
urlpatterns: list[URLPattern | URLResolver] = [
    path("activation/single", activations.single, name="single"),
    path("activation/single-batch", activations.single_batch, name="single-batch"),
    path("activation/all", activations.everything, name="all"),
    path("activation/all-batch", activations.everything_batch, name="all-batch"),
    path("activation/topk-by-token", activations.top, name="topk"),
    path("activation/topk-by-token-batch", activations.top_batch, name="topk-batch"),
    path("activation/source", activations.source, name="source"),
    path("steer/", include("steering.compat.neuronpedia.steer.urls")),
    path("tokenize", utilities.tokenize, name="tokenize"),
    path("util/sae-topk-by-decoder-cossim", utilities.nearest, name="nearest"),
    path("util/sae-vector", utilities.vector, name="vector"),
    path("capabilities", status.capabilities, name="capabilities"),
]
