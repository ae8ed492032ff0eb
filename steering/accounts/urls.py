from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LogoutView
from django.urls import path

from steering.accounts import views

app_name = "accounts"
urlpatterns = [
    path("signin/", views.SignIn.as_view(), name="signin"),
    path("signout/", login_not_required(LogoutView.as_view()), name="signout"),
    path("link/<str:token>/", views.link, name="link"),
    path("password/", views.password, name="password"),
    path("profile/", views.profile, name="profile"),
]
