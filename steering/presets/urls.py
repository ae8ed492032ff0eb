from django.urls import path

from steering.presets import views

app_name = "presets"
urlpatterns = [
    path("", views.preset_list, name="list"),
    path("library.json", views.library_json, name="library"),
    path("save/", views.preset_save, name="save"),
    path("<uuid:pk>/", views.preset_detail, name="detail"),
    path("<uuid:pk>/edit/", views.preset_edit, name="edit"),
    path("<uuid:pk>/version/", views.preset_version, name="version"),
    path("<uuid:pk>/share/", views.preset_share, name="share"),
    path("<uuid:pk>/delete/", views.preset_delete, name="delete"),
]
