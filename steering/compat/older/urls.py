"""At the root, as the older server had them."""

from __future__ import annotations

from django.urls import path

from steering.compat.older import completion, reading

app_name = "older"
urlpatterns = [
    path("activations-all", reading.activations_all, name="all"),
    path("activations-test", reading.activations_test, name="test"),
    path("activations-topk-by-token", reading.activations_topk_by_token, name="topk"),
    path("completion", completion.completion, name="completion"),
    path("top-k-by-decoder-cosine-similarity", reading.top_k_by_decoder_cosine_similarity, name="nearest"),
]
