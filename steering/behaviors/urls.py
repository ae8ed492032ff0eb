from django.urls import path

from steering.behaviors import views

app_name = "behaviors"
urlpatterns = [
    path("", views.behavior_list, name="list"),
]
