"""Addresses of ours. allauth_urls has those whose names allauth decides."""

from django.urls import path

from steering.accounts import views

app_name = "accounts"
urlpatterns = [
    path("link/<str:token>/", views.link, name="link"),
    path("profile/", views.profile, name="profile"),
    path("sessions/<int:pk>/end/", views.end_session, name="end_session"),
    path("programs/<uuid:pk>/end/", views.end_program, name="end_program"),
    path("invitations/", views.invitations, name="invitations"),
    path("invitations/<int:pk>/take-back/", views.take_back, name="take_back"),
    path("invitation/<str:token>/", views.invitation, name="invitation"),
    path("delete/", views.delete, name="delete"),
]
