from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.urls import path
from django.views.generic import RedirectView

from steering.compat.mechanex import account, dashboard, keys, models, money
from steering.compat.mechanex.wire import or_page

app_name = "mechanex"
urlpatterns = [
    path("auth/signup", account.signup),
    path("auth/login", account.login),
    path("auth/refresh", account.refresh),
    path("auth/logout", account.logout),
    path("auth/whoami", account.whoami),
    path("auth/dashboard", dashboard.dashboard),
    path("auth/change-password", account.change_password),
    path("auth/change-email", account.change_email),
    path("auth/forgot-password", account.forgot_password),
    path("auth/delete-account", account.delete),
    path("auth/api-keys", keys.addresses),
    path("auth/api-keys/balance", keys.balance),
    path("auth/api-keys/set-model", keys.set_model),
    path("auth/api-keys/<str:id>", keys.revoke),
    path("models", or_page(models.listed)),
    path("graph", models.graph),
    path("paths", models.paths),
    path("payments/subscriptions", money.subscriptions),
    path("payments/checkout", money.checkout),
    path("waitlist/check", money.waitlist),
    path("docs", login_not_required(RedirectView.as_view(pattern_name="api-docs"))),
]
