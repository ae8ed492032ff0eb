"""Pages of one's account. Where allauth has the view it is used, with our template; the rest is here."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from allauth.account import views as allauth
from allauth.account.decorators import reauthentication_required
from allauth.account.internal.flows.login import record_authentication
from allauth.account.internal.flows.logout import logout
from allauth.account.internal.flows.reauthentication import get_reauthentication_flows
from allauth.account.utils import perform_login
from allauth.core import ratelimit
from allauth.usersessions.internal.flows.sessions import end_sessions
from allauth.usersessions.models import UserSession
from allauth.usersessions.views import ListUserSessionsView
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from steering.accounts import deletion, logins, mailing, signup, totp
from steering.accounts.adapter import LINK
from steering.accounts.forms import DeleteForm, InviteForm, ProfileForm, SignUpForm
from steering.accounts.models import Invitation, ProgramLogin, SigninLink
from steering.accounts.origin import is_local, site_url
from steering.accounts.requests import PersonRequest

SHOWN_INVITATIONS = 100


class SignIn(allauth.LoginView):
    template_name = "accounts/signin.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs) | {"signup_open": settings.SIGNUP == signup.OPEN}


class SignOut(allauth.LogoutView):
    """Only a form signs out: a link on another page must not."""

    http_method_names = ["post", "options"]


class SignUp(allauth.SignupView):
    template_name = "accounts/signup.html"
    template_name_signup_closed = "accounts/signup_closed.html"

    def get_form_kwargs(self) -> dict[str, Any]:
        return super().get_form_kwargs() | {"invitation": signup.invitation_of(self.request)}

    def form_valid(self, form: SignUpForm) -> HttpResponse:
        try:
            return super().form_valid(form)
        except signup.InvitationSpent:
            return invitation_spent(self.request)

    def closed(self) -> HttpResponse:
        response = super().closed()
        response.status_code = 403
        return response


class MailSent(allauth.EmailVerificationSentView):
    template_name = "accounts/email_sent.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs) | link_instead_of_mail(self.request)


class ChangeEmail(allauth.EmailView):
    template_name = "accounts/email.html"

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response: HttpResponse = super().post(request, *args, **kwargs)
        if "action_send" in request.POST and not self._did_send_verification_email:
            messages.warning(request, "A link was sent a moment ago. Wait three minutes before you ask for another.")
        return response

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs) | link_instead_of_mail(self.request)


class ResetSent(allauth.PasswordResetDoneView):
    """Never shows the link, not even here: whoever reads the server's console owns it, whoever opens a page may not."""

    template_name = "accounts/reset_sent.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs) | {"console": not settings.EMAIL_URL}


def link_instead_of_mail(request: HttpRequest) -> dict[str, Any]:
    """Where mail goes to the console: that it does, and on the machine itself the link that this browser asked for."""
    link = request.session.get(LINK) if is_local(request) else None
    return {"console": not settings.EMAIL_URL, "link": link}


@login_not_required
@never_cache
@require_GET
def link(request: HttpRequest, token: str) -> HttpResponse:
    """Sign in by a one-time link. It stands for the password; a second step, where there is one, is asked for."""
    user = SigninLink.objects.redeem(token)
    if user is None:
        return render(request, "accounts/link_spent.html", status=410)
    if request.user.is_authenticated and request.user.pk != user.pk:
        logout(request, show_message=False)
    record_authentication(request, user, method="link")
    response: HttpResponse = perform_login(request, user, email_verification="none")
    return response


@require_http_methods(["GET", "POST"])
def profile(request: PersonRequest) -> HttpResponse:
    form = ProfileForm(request.POST or None, instance=request.user)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, "Your profile is saved.")
        return redirect("accounts:profile")
    return render(request, "accounts/profile.html", {"form": form})


class Sessions(ListUserSessionsView):
    """Browsers that are signed in and programs that are logged in."""

    template_name = "accounts/sessions.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs) | {"programs": logins.of(self.request.user)}

    def form_valid(self, form: Any) -> HttpResponse:
        logins.end_all(self.request.user)
        response: HttpResponse = super().form_valid(form)
        return response


@require_POST
def end_program(request: PersonRequest, pk: UUID) -> HttpResponse:
    """End the log-in of a program of one's own."""
    login = get_object_or_404(ProgramLogin, pk=pk, user=request.user)
    logins.end(login)
    messages.success(request, "That log-in has ended. The program has to log in again.")
    return redirect("usersessions_list")


@require_POST
def end_session(request: PersonRequest, pk: int) -> HttpResponse:
    """End one session of one's own. Ending this very one signs out."""
    session = get_object_or_404(UserSession, pk=pk, user=request.user)
    here = session.is_current()
    end_sessions(request, [session])
    if here:
        return redirect("account_login")
    messages.success(request, "That session has ended. Whoever used it is signed out.")
    return redirect("usersessions_list")


# ---- invitations ----


@never_cache
@require_http_methods(["GET", "POST"])
def invitations(request: PersonRequest) -> HttpResponse:
    """Staff make invitations here. A link is shown once, in the answer that made it."""
    totp.require_staff(request)
    form = InviteForm(request.POST or None)
    context: dict[str, Any] = {"open": signup.accepts_invitations(), "mails": bool(settings.EMAIL_URL)}
    if request.method == "POST" and signup.accepts_invitations() and form.is_valid():
        made, token = Invitation.objects.issue(form.cleaned_data["email"], request.user)
        context |= {"made": made, "link": site_url(request) + reverse("accounts:invitation", args=[token])}
        if settings.EMAIL_URL:
            mailing.send("invitation", made.email, {"invitation": made, **context})
        form = InviteForm()
    context |= {"form": form, "invitations": Invitation.objects.select_related("invited_by")[:SHOWN_INVITATIONS]}
    return render(request, "accounts/invitations.html", context)


@require_POST
def take_back(request: PersonRequest, pk: int) -> HttpResponse:
    totp.require_staff(request)
    invitation = get_object_or_404(Invitation, pk=pk)
    waiting = Invitation.objects.filter(pk=pk, used_at=None, revoked_at=None)
    if waiting.update(revoked_at=timezone.now()):
        messages.success(request, f"The invitation for {invitation.email} no longer works.")
    else:
        messages.warning(request, f"The invitation for {invitation.email} was used or taken back before.")
    return redirect("accounts:invitations")


@login_not_required
@never_cache
@require_GET
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """Open an invitation: from here the sign-up page is open to this browser, for the invited address."""
    if not ratelimit.consume(request, action="invitation"):
        return ratelimit.respond_429(request)
    if not signup.accepts_invitations() or Invitation.objects.live(token) is None:
        return invitation_spent(request)
    if request.user.is_authenticated:
        messages.warning(request, "You have an account and are signed in. Sign out first to use an invitation.")
        return redirect("accounts:profile")
    request.session[signup.SESSION_KEY] = token
    return redirect("account_signup")


def invitation_spent(request: HttpRequest) -> HttpResponse:
    return render(request, "accounts/invitation_spent.html", status=410)


# ---- leaving ----


@never_cache
@require_http_methods(["GET", "POST"])
@reauthentication_required(enabled=lambda request: bool(get_reauthentication_flows(request.user)))
def delete(request: PersonRequest) -> HttpResponse:
    """Delete one's account: after the password or a code, or soon after signing in, and after typing the address."""
    if deletion.is_last_administrator(request.user):
        return render(request, "accounts/delete_last.html", status=200 if request.method == "GET" else 409)
    if not get_reauthentication_flows(request.user) and not deletion.signed_in_recently(request.user):
        return render(request, "accounts/delete_stale.html", status=403)
    form = DeleteForm(request.user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            deletion.delete_account(request.user)
        except deletion.LastAdministrator:
            return render(request, "accounts/delete_last.html", status=409)
        logout(request, show_message=False)
        messages.success(request, "Your account and what belonged to it are deleted.")
        return redirect("account_login")
    return render(request, "accounts/delete.html", {"form": form, "owned": deletion.owned_by(request.user)})


# ---- the admin pages ----


@login_not_required
@never_cache
@require_GET
def admin_signin(request: HttpRequest) -> HttpResponse:
    """In place of the admin's own sign-in page, which knows neither of locking nor of a second step."""
    if request.user.is_authenticated:
        raise PermissionDenied("The admin pages are for the people who run this installation.")
    return redirect(f"{reverse('account_login')}?{request.GET.urlencode()}")
