from django.urls import path, re_path

from steering.datasets import asking_pages, editing, views

UUID = r"(?P<pk>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"

app_name = "datasets"
urlpatterns = [
    path("", views.dataset_list, name="list"),
    path("new/", editing.dataset_new, name="new"),
    path("import/", editing.dataset_new, {"how": "upload"}, name="import"),
    path("import/<uuid:pk>/", editing.dataset_preview, name="preview"),
    path("describe/", asking_pages.pairs_ask_page, name="describe"),
    path("describe/<uuid:pk>/", asking_pages.pairs_wait, name="describing"),
    path("draft/<uuid:pk>/", asking_pages.draft_review, name="review"),
    path("<uuid:pk>/", views.dataset_detail, name="detail"),
    path("<uuid:pk>/edit/", editing.dataset_edit, name="edit"),
    path("<uuid:pk>/duplicate/", views.dataset_duplicate_view, name="duplicate"),
    path("<uuid:pk>/delete/", views.dataset_delete, name="delete"),
    path("<uuid:pk>/lint/", views.dataset_lint, name="lint"),
    re_path(rf"^{UUID}/export\.(?P<ending>jsonl|csv)$", views.dataset_export, name="export"),
]
