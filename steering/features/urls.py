from django.urls import path

from steering.features import views

app_name = "features"
urlpatterns = [
    path("", views.home, name="home"),
]
