from django.urls import path, re_path

from steering.attribution import views

app_name = "attribution"
ID = r"(?P<pk>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
urlpatterns = [
    path("", views.attribution_list, name="list"),
    path("new/", views.attribution_new, name="new"),
    path("tokens/", views.attribution_tokens, name="tokens"),
    path("model/", views.model_map, name="map"),
    path("<uuid:pk>/", views.attribution_detail, name="detail"),
    path("<uuid:pk>/parts/", views.attribution_part, name="part"),
    path("<uuid:pk>/rename/", views.attribution_rename, name="rename"),
    path("<uuid:pk>/share/", views.attribution_share, name="share"),
    path("<uuid:pk>/delete/", views.attribution_delete, name="delete"),
    re_path(rf"^{ID}/attribution\.(?P<ending>json|csv)$", views.attribution_export, name="export"),
]
