from django.urls import path

from steering.playground import views

app_name = "playground"
urlpatterns = [
    path("", views.welcome, name="welcome"),
    path("playground/", views.home, name="home"),
    path("playground/runs/", views.runs, name="runs"),
    path("playground/<uuid:pk>/", views.run, name="run"),
    path("playground/<uuid:pk>/rename/", views.rename, name="rename"),
    path("playground/<uuid:pk>/stop/", views.stop, name="stop"),
    path("playground/<uuid:pk>/delete/", views.delete, name="delete"),
]
