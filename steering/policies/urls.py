from django.urls import path

from steering.policies import preset_views, run_views, views

app_name = "policies"
urlpatterns = [
    path("", views.policy_list, name="list"),
    path("new/", views.policy_new, name="new"),
    path("presets/", preset_views.preset_list, name="presets"),
    path("presets/<uuid:pk>/", preset_views.preset_detail, name="preset"),
    path("presets/<uuid:pk>/clone/", preset_views.preset_clone, name="preset_clone"),
    path("presets/<uuid:pk>/delete/", preset_views.preset_delete, name="preset_delete"),
    path("runs/", run_views.run_list, name="runs"),
    path("run/", run_views.run_new, name="run_new"),
    path("evaluate/", run_views.evaluate_new, name="evaluate_new"),
    path("tune/", run_views.tune_new, name="tune_new"),
    path("estimate/<slug:kind>/", run_views.run_estimate, name="estimate"),
    path("runs/<uuid:pk>/", run_views.run_detail, name="run"),
    path("runs/<uuid:pk>/trace.json", run_views.run_trace, name="trace"),
    path("runs/<uuid:pk>/replay/", run_views.run_replay, name="replay"),
    path("runs/<uuid:pk>/again/", run_views.run_again, name="again"),
    path("runs/<uuid:pk>/best/", run_views.run_best, name="best"),
    path("runs/<uuid:pk>/export.<str:ending>", run_views.run_export, name="export"),
    path("runs/<uuid:pk>/delete/", run_views.run_delete, name="run_delete"),
    path("<uuid:pk>/", views.policy_detail, name="detail"),
    path("<uuid:pk>/version/", views.policy_version, name="version"),
    path("<uuid:pk>/edit/", views.policy_edit, name="edit"),
    path("<uuid:pk>/share/", views.policy_share, name="share"),
    path("<uuid:pk>/clone/", views.policy_clone, name="clone"),
    path("<uuid:pk>/publish/", preset_views.preset_publish, name="publish"),
    path("<uuid:pk>/delete/", views.policy_delete, name="delete"),
]
