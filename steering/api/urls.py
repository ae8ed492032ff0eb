from django.urls import include, path

from steering.api.rest import docs

urlpatterns = [
    path("docs/", docs.page, name="api-docs"),
    path("v1/", include("steering.api.rest.urls")),
]
