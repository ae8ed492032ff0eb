from django.urls import path

from steering.workers import views

app_name = "workers"
urlpatterns = [
    path("", views.worker_list, name="list"),
    path("table/", views.worker_table, name="table"),
    path("choose/", views.model_choose, name="choose"),
    path("<str:worker_id>/<slug:command>/", views.worker_control, name="control"),
]
