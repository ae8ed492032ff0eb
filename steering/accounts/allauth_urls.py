"""The part of allauth that is served, each view with a template of ours. What is not here has no address."""

from allauth.account import views as account
from allauth.mfa.base import views as mfa
from allauth.mfa.recovery_codes import views as codes
from allauth.mfa.totp import views as totp
from django.urls import path, re_path

from steering.accounts import views

urlpatterns = [
    path("signin/", views.SignIn.as_view(), name="account_login"),
    path("signout/", views.SignOut.as_view(), name="account_logout"),
    path("signup/", views.SignUp.as_view(), name="account_signup"),
    path(
        "inactive/",
        account.AccountInactiveView.as_view(template_name="accounts/inactive.html"),
        name="account_inactive",
    ),
    path(
        "again/", account.ReauthenticateView.as_view(template_name="accounts/again.html"), name="account_reauthenticate"
    ),
    path("email/", views.ChangeEmail.as_view(), name="account_email"),
    path("email/sent/", views.MailSent.as_view(), name="account_email_verification_sent"),
    re_path(
        r"^email/confirm/(?P<key>[-:\w]+)/$",
        account.ConfirmEmailView.as_view(template_name="accounts/email_confirm.html"),
        name="account_confirm_email",
    ),
    path(
        "password/",
        account.PasswordChangeView.as_view(template_name="accounts/password.html"),
        name="account_change_password",
    ),
    path(
        "password/set/",
        account.PasswordSetView.as_view(template_name="accounts/password.html"),
        name="account_set_password",
    ),
    path(
        "password/reset/",
        account.PasswordResetView.as_view(template_name="accounts/reset.html"),
        name="account_reset_password",
    ),
    path("password/reset/sent/", views.ResetSent.as_view(), name="account_reset_password_done"),
    path(
        "password/reset/done/",
        account.PasswordResetFromKeyDoneView.as_view(template_name="accounts/reset_done.html"),
        name="account_reset_password_from_key_done",
    ),
    re_path(
        r"^password/reset/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>[-\w]+)/$",
        account.PasswordResetFromKeyView.as_view(template_name="accounts/reset_key.html"),
        name="account_reset_password_from_key",
    ),
    path("sessions/", views.Sessions.as_view(), name="usersessions_list"),
    path("totp/", mfa.IndexView.as_view(template_name="accounts/totp/index.html"), name="mfa_index"),
    path("totp/code/", mfa.AuthenticateView.as_view(template_name="accounts/totp/code.html"), name="mfa_authenticate"),
    path(
        "totp/again/",
        mfa.ReauthenticateView.as_view(template_name="accounts/totp/again.html"),
        name="mfa_reauthenticate",
    ),
    path(
        "totp/on/", totp.ActivateTOTPView.as_view(template_name="accounts/totp/activate.html"), name="mfa_activate_totp"
    ),
    path(
        "totp/off/",
        totp.DeactivateTOTPView.as_view(template_name="accounts/totp/deactivate.html"),
        name="mfa_deactivate_totp",
    ),
    path(
        "totp/codes/",
        codes.ViewRecoveryCodesView.as_view(template_name="accounts/totp/codes.html"),
        name="mfa_view_recovery_codes",
    ),
    path(
        "totp/codes/new/",
        codes.GenerateRecoveryCodesView.as_view(template_name="accounts/totp/generate.html"),
        name="mfa_generate_recovery_codes",
    ),
    path(
        "totp/codes/download/",
        codes.DownloadRecoveryCodesView.as_view(template_name="accounts/totp/download.txt"),
        name="mfa_download_recovery_codes",
    ),
]
