"""The workshop: a page for a talk, and the three calls behind it."""

from django.urls import path

from steering.compat.workshop import views

app_name = "workshop"
urlpatterns = [
    path("", views.stage, name="stage"),
    path("generate", views.generate, name="generate"),
    path("compare", views.compare, name="compare"),
    path("examples", views.examples, name="examples"),
]
