from django.urls import path

from steering.behaviors import monitoring_views, views

app_name = "behaviors"
urlpatterns = [
    path("", views.behavior_list, name="list"),
    path("new/", views.behavior_new, name="new"),
    path("fitting/<uuid:pk>/", views.behavior_fitting, name="fitting"),
    path("library.json", views.library_json, name="library"),
    path("<uuid:pk>/", views.behavior_detail, name="detail"),
    path("<uuid:pk>/edit/", views.behavior_edit, name="edit"),
    path("<uuid:pk>/version/", views.behavior_version, name="version"),
    path("<uuid:pk>/share/", views.behavior_share, name="share"),
    path("<uuid:pk>/delete/", views.behavior_delete, name="delete"),
    path("<uuid:pk>/read/", views.behavior_read, name="read"),
    path("<uuid:pk>/read/<uuid:job>.json", views.behavior_reading, name="reading"),
    path("<uuid:pk>/monitoring/", monitoring_views.monitoring_page, name="monitoring"),
    path("<uuid:pk>/monitoring.csv", monitoring_views.monitoring_csv, name="monitoring_csv"),
    path("<uuid:pk>/alert/", monitoring_views.alert_set, name="alert"),
    path("<uuid:pk>/alerts/seen/", monitoring_views.alerts_seen, name="alerts_seen"),
    path("<uuid:pk>/samples/", monitoring_views.samples_set, name="samples"),
]
