from django.urls import path, re_path

from steering.rating import views

app_name = "rating"
ID = r"(?P<pk>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
urlpatterns = [
    path("", views.study_list, name="list"),
    path("new/", views.study_new, name="new"),
    path("<uuid:pk>/", views.study_detail, name="detail"),
    path("<uuid:pk>/status/", views.study_status, name="status"),
    path("<uuid:pk>/rate/", views.study_rate, name="rate"),
    path("<uuid:pk>/resume/", views.study_resume, name="resume"),
    path("<uuid:pk>/share/", views.study_share, name="share"),
    path("<uuid:pk>/delete/", views.study_delete, name="delete"),
    re_path(rf"^{ID}/answers\.(?P<ending>csv|jsonl)$", views.study_export, name="export"),
]
