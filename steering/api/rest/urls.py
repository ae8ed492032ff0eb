"""Every address of the API. They end with a slash; whatever is none is refused as JSON."""

from django.contrib.auth.decorators import login_not_required
from django.urls import path, re_path
from django.views.decorators.csrf import csrf_exempt

from steering.api.rest.errors import no_such_address
from steering.api.rest.views import datasets, document, jobs, keys, presets, runs, served, usage, vectors

app_name = "rest"
urlpatterns = [
    path("datasets/", datasets.Datasets.as_view(), name="datasets"),
    path("datasets/import/", datasets.Imports.as_view(), name="dataset-import"),
    path("datasets/<uuid:id>/", datasets.OneDataset.as_view(), name="dataset"),
    path("datasets/<uuid:id>/pairs/", datasets.Pairs.as_view(), name="dataset-pairs"),
    path("datasets/<uuid:id>/copy/", datasets.Copies.as_view(), name="dataset-copy"),
    path("datasets/<uuid:id>/export/", datasets.Exports.as_view(), name="dataset-export"),
    path("datasets/<uuid:id>/findings/", datasets.Findings.as_view(), name="dataset-findings"),
    path("vectors/", vectors.Vectors.as_view(), name="vectors"),
    path("vectors/build/", vectors.Builds.as_view(), name="vector-build"),
    path("vectors/optimise/", vectors.Optimisations.as_view(), name="vector-optimise"),
    path("vectors/import/", vectors.Imports.as_view(), name="vector-import"),
    path("vectors/<uuid:id>/", vectors.OneVector.as_view(), name="vector"),
    path("vectors/<uuid:id>/recipe/", vectors.Recipes.as_view(), name="vector-recipe"),
    path("vectors/<uuid:id>/download/", vectors.Downloads.as_view(), name="vector-download"),
    path("presets/", presets.Presets.as_view(), name="presets"),
    path("presets/<uuid:id>/", presets.OnePreset.as_view(), name="preset"),
    path("runs/", runs.Runs.as_view(), name="runs"),
    path("runs/<uuid:id>/", runs.OneRun.as_view(), name="run"),
    path("runs/<uuid:id>/events/", runs.RunEvents.as_view(), name="run-events"),
    path("runs/<uuid:id>/stop/", runs.Stops.as_view(), name="run-stop"),
    path("jobs/", jobs.Jobs.as_view(), name="jobs"),
    path("jobs/<uuid:id>/", jobs.OneJob.as_view(), name="job"),
    path("jobs/<uuid:id>/cancel/", jobs.Cancellations.as_view(), name="job-cancel"),
    path("jobs/<uuid:id>/finish/", jobs.Finishes.as_view(), name="job-finish"),
    path("jobs/<uuid:id>/events/", jobs.JobEvents.as_view(), name="job-events"),
    path("model/", served.DefaultModel.as_view(), name="default-model"),
    path("models/", served.Models.as_view(), name="models"),
    path("models/<path:id>/", served.OneModel.as_view(), name="model"),
    path("workers/", served.Workers.as_view(), name="workers"),
    path("workers/<str:id>/load/", served.Loads.as_view(), name="worker-load"),
    path("workers/<str:id>/<slug:command>/", served.Commands.as_view(), name="worker-command"),
    path("keys/", keys.Keys.as_view(), name="keys"),
    path("keys/<uuid:id>/", keys.OneKey.as_view(), name="key"),
    path("keys/<uuid:id>/rotate/", keys.Rotations.as_view(), name="key-rotate"),
    path("usage/", usage.Usage.as_view(), name="usage"),
    path("schema/", document.Document.as_view(), name="schema"),
    re_path(r"^.*$", login_not_required(csrf_exempt(no_such_address)), name="no-such-address"),
]
