"""Every address, one line per app."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

from steering.accounts.views import admin_signin
from steering.compat.neuronpedia.status import health as alive
from webapp import csp, errors, frame, health, metrics

urlpatterns = [
    path("v1/", include("steering.api.openai.urls")),  # first, since Django looks from the top: programs ask most often
    path("v1/", include("steering.compat.neuronpedia.urls")),
    path("", include("steering.compat.mechanex.urls")),
    path("", include("steering.compat.older.urls")),
    path("", include("steering.playground.urls")),
    path("accounts/", include("steering.accounts.allauth_urls")),
    path("accounts/", include("steering.accounts.urls")),
    path("admin/login/", admin_signin, name="admin_signin"),
    path("admin/", admin.site.urls),
    path("csp-report", csp.report, name="csp-report"),
    path("api/", include("steering.api.urls")),
    path("attribution/", include("steering.attribution.urls")),
    path("behaviors/", include("steering.behaviors.urls")),
    path("datasets/", include("steering.datasets.urls")),
    path("experiments/", include("steering.experiments.urls")),
    path("features/", include("steering.features.urls")),
    path("favicon.ico", login_not_required(RedirectView.as_view(url=static("favicon.svg")))),
    path("health", alive, name="health"),
    path("jobs/", include("steering.jobs.urls")),
    path("keys/", include("steering.access.urls")),
    path("livez", health.livez, name="livez"),
    path("metrics", metrics.show, name="metrics"),
    path("models/", include("steering.workers.urls")),
    path("policies/", include("steering.policies.urls")),
    path("presets/", include("steering.presets.urls")),
    path("questions/", include("steering.retrieval.urls")),
    path("rating/", include("steering.rating.urls")),
    path("readyz", health.readyz, name="readyz"),
    path("status.json", frame.status, name="status"),
    path("vectors/", include("steering.vectors.urls")),
    path("workshop/", include("steering.compat.workshop.urls")),
]

handler400 = errors.bad_request
handler403 = errors.forbidden
handler404 = errors.not_found
handler429 = errors.too_many
handler500 = errors.server_error
