from django.urls import path

from steering.experiments import views

app_name = "experiments"
urlpatterns = [
    path("", views.experiment_list, name="list"),
    path("new/<slug:recipe>/", views.experiment_new, name="new"),
    path("estimate/<slug:recipe>/", views.experiment_estimate, name="estimate"),
    path("<uuid:pk>/", views.experiment_detail, name="detail"),
    path("<uuid:pk>/status/", views.experiment_status, name="status"),
    path("<uuid:pk>/texts/", views.experiment_texts, name="texts"),
    path("<uuid:pk>/export/<slug:ending>/", views.experiment_export, name="export"),
    path("<uuid:pk>/cancel/", views.experiment_cancel, name="cancel"),
    path("<uuid:pk>/resume/", views.experiment_resume, name="resume"),
    path("<uuid:pk>/share/", views.experiment_share, name="share"),
    path("<uuid:pk>/preset/", views.experiment_preset, name="preset"),
    path("<uuid:pk>/delete/", views.experiment_delete, name="delete"),
]
