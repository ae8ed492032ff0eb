"""Policies, attribution patching and answers from documents."""

from __future__ import annotations

from django.urls import path

from steering.compat.mechanex import attribution, policies, raag
from steering.compat.mechanex.wire import or_page

urlpatterns = [
    path("policies", or_page(policies.listed)),
    path("policies/save", policies.save),
    path("policies/run", policies.run),
    path("policies/compare", policies.compared),
    path("policies/evaluate", policies.evaluated),
    path("policies/autotune", policies.tuned),
    path("policies/presets", or_page(policies.presets)),
    path("policies/presets/publish", policies.publish),
    path("policies/presets/<str:id>/clone", policies.clone),
    path("policies/<str:id>", or_page(policies.one)),
    path("policies/<str:id>/run", policies.run_stored),
    path("attribution-patching/scores", attribution.scores),
    path("raag/generate", raag.generate),
]
