from django.urls import path

from steering.accounts import views

app_name = "accounts"
urlpatterns = [
    path("signin/", views.SignIn.as_view(), name="signin"),
    path("signout/", views.SignOut.as_view(), name="signout"),
    path("link/<str:token>/", views.link, name="link"),
    path("password/", views.password, name="password"),
    path("profile/", views.profile, name="profile"),
]
