from __future__ import annotations

from django.urls import path

from steering.compat.mechanex import behaviors, evaluating, models, vectors, writing
from steering.compat.mechanex.wire import by_method, or_page

app_name = "mechanex"
urlpatterns = [
    path("graph", models.graph),
    path("generate", writing.generate),
    path("sampling/generate", writing.sample),
    path("sae/generate", writing.correct),
    path("steering/generate", vectors.generate),
    path("steering/run", writing.run_steered),
    path("steering/generate-pairs", evaluating.generate_pairs),
    path("steering/evaluate", evaluating.evaluate),
    path("steering/vectors/<str:vector_id>/download", vectors.download),
    path("auth/steering-vectors", vectors.listed),
    path("auth/steering-vectors/bulk-delete", vectors.delete_several),
    path("auth/steering-vectors/<str:vector_id>", by_method(PATCH=vectors.relabel, DELETE=vectors.delete)),
    path("behaviors", or_page(behaviors.listed)),
    path("behaviors/create", behaviors.create),
    path("behaviors/<str:behavior_id>/rename", behaviors.rename),
]
