from django.urls import path

from steering.attribution import views

app_name = "attribution"
urlpatterns = [path("", views.attribution_list, name="list")]
