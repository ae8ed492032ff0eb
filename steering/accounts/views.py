from __future__ import annotations

from django.contrib import messages
from django.contrib.auth import login, update_session_auth_hash
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from steering.accounts.forms import FirstPasswordForm, NewPasswordForm, ProfileForm, SignInForm
from steering.accounts.models import SigninLink
from steering.accounts.requests import PersonRequest


class SignIn(LoginView):
    template_name = "accounts/signin.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True


@login_not_required
@never_cache
@require_GET
def link(request: HttpRequest, token: str) -> HttpResponse:
    """Sign in by a one-time link."""
    user = SigninLink.objects.redeem(token)
    if user is None:
        return render(request, "accounts/link_spent.html", status=410)
    login(request, user)
    return redirect("/")


@never_cache
@require_http_methods(["GET", "POST"])
def password(request: PersonRequest) -> HttpResponse:
    """Set the first password, or change it; other sessions of the account end."""
    form_class = NewPasswordForm if request.user.has_usable_password() else FirstPasswordForm
    form = form_class(request.user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        update_session_auth_hash(request, form.save())
        messages.success(request, "Your password is set. Other sessions of this account have ended.")
        return redirect("accounts:profile")
    return render(request, "accounts/password.html", {"form": form})


@require_http_methods(["GET", "POST"])
def profile(request: PersonRequest) -> HttpResponse:
    form = ProfileForm(request.POST or None, instance=request.user)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, "Your profile is saved.")
        return redirect("accounts:profile")
    return render(request, "accounts/profile.html", {"form": form})
