"""Policies, attribution patching and answers from documents."""

from __future__ import annotations

from django.urls import path

from steering.compat.mechanex import attribution, policies, raag
from steering.compat.mechanex.wire import or_page

urlpatterns = [
    path("policies", or_page(policies.listed), name="policies"),
    path("policies/save", policies.save, name="policy-save"),
    path("policies/run", policies.run, name="policy-run"),
    path("policies/compare", policies.compared, name="policy-compare"),
    path("policies/evaluate", policies.evaluated, name="policy-evaluate"),
    path("policies/autotune", policies.tuned, name="policy-autotune"),
    path("policies/presets", or_page(policies.presets), name="policy-presets"),
    path("policies/presets/publish", policies.publish, name="policy-publish"),
    path("policies/presets/<str:id>/clone", policies.clone, name="policy-clone"),
    path("policies/<str:id>", or_page(policies.one), name="policy"),
    path("policies/<str:id>/run", policies.run_stored, name="policy-run-stored"),
    path("attribution-patching/scores", attribution.scores, name="scores"),
    path("raag/generate", raag.generate, name="raag"),
]
