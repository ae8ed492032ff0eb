from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.urls import include, path
from django.views.generic import RedirectView

from steering.compat.mechanex import account, behaviors, dashboard, evaluating, keys, models, money, vectors, writing
from steering.compat.mechanex.wire import by_method, or_page

app_name = "mechanex"
urlpatterns = [
    path("", include("steering.compat.mechanex.policy_urls")),
    path("auth/signup", account.signup, name="signup"),
    path("auth/login", account.login, name="login"),
    path("auth/refresh", account.refresh, name="refresh"),
    path("auth/logout", account.logout, name="logout"),
    path("auth/whoami", account.whoami, name="whoami"),
    path("auth/dashboard", dashboard.dashboard, name="dashboard"),
    path("auth/change-password", account.change_password, name="change-password"),
    path("auth/change-email", account.change_email, name="change-email"),
    path("auth/forgot-password", account.forgot_password, name="forgot-password"),
    path("auth/delete-account", account.delete, name="delete-account"),
    path("auth/api-keys", keys.addresses, name="keys"),
    path("auth/api-keys/balance", keys.balance, name="balance"),
    path("auth/api-keys/set-model", keys.set_model, name="set-model"),
    path("auth/api-keys/<str:id>", keys.revoke, name="key"),
    path("models", or_page(models.listed), name="models"),
    path("graph", models.graph, name="graph"),
    path("paths", models.paths, name="paths"),
    path("payments/subscriptions", money.subscriptions, name="subscriptions"),
    path("payments/checkout", money.checkout, name="checkout"),
    path("waitlist/check", money.waitlist, name="waitlist"),
    path("docs", login_not_required(RedirectView.as_view(pattern_name="api-docs")), name="docs"),
    path("generate", writing.generate, name="generate"),
    path("sampling/generate", writing.sample, name="sample"),
    path("sae/generate", writing.correct, name="correct"),
    path("steering/generate", vectors.generate, name="vector-generate"),
    path("steering/run", writing.run_steered, name="steered"),
    path("steering/generate-pairs", evaluating.generate_pairs, name="pairs"),
    path("steering/evaluate", evaluating.evaluate, name="vector-evaluate"),
    path("steering/vectors/<str:vector_id>/download", vectors.download, name="vector-download"),
    path("auth/steering-vectors", vectors.listed, name="vectors"),
    path("auth/steering-vectors/bulk-delete", vectors.delete_several, name="vectors-delete"),
    path(
        "auth/steering-vectors/<str:vector_id>", by_method(PATCH=vectors.relabel, DELETE=vectors.delete), name="vector"
    ),
    path("behaviors", or_page(behaviors.listed), name="behaviors"),
    path("behaviors/create", behaviors.create, name="behavior-create"),
    path("behaviors/<str:behavior_id>/rename", behaviors.rename, name="behavior-rename"),
]
