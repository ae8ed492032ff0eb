from django.urls import path

from steering.access import views

app_name = "access"
urlpatterns = [
    path("", views.key_list, name="keys"),
    path("new/", views.key_new, name="new"),
    path("<uuid:pk>/", views.key_detail, name="key"),
    path("<uuid:pk>/rotate/", views.key_rotate, name="rotate"),
    path("<uuid:pk>/revoke/", views.key_revoke, name="revoke"),
]
