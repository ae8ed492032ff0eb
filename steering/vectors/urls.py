from django.urls import path

from steering.vectors import comparing_views, files, views

app_name = "vectors"
urlpatterns = [
    path("", views.vector_list, name="list"),
    path("library.json", views.library_json, name="library"),
    path("build/", views.vector_build, name="build"),
    path("building/<uuid:pk>/", views.vector_building, name="building"),
    path("compare/", comparing_views.compare, name="compare"),
    path("combine/", comparing_views.combine, name="combine"),
    path("combining/<uuid:pk>/", comparing_views.combining_job, name="combining"),
    path("forecast/<uuid:pk>/", views.vector_forecast, name="forecast"),
    path("upload/", files.vector_upload, name="upload"),
    path("upload/<uuid:pk>/", files.vector_draft, name="draft"),
    path("<uuid:pk>/", views.vector_detail, name="detail"),
    path("<uuid:pk>/vector.safetensors", files.vector_download, name="download"),
    path("<uuid:pk>/export/<slug:format>/", files.vector_export, name="export"),
    path("<uuid:pk>/recipe.json", files.vector_recipe, name="recipe"),
    path("<uuid:pk>/facts.json", views.vector_json, name="json"),
    path("<uuid:pk>/rename/", views.vector_rename, name="rename"),
    path("<uuid:pk>/delete/", views.vector_delete, name="delete"),
]
