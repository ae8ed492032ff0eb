"""How allauth behaves here: our mails, our sentences, our rules on who may sign up and where one may be sent."""

from __future__ import annotations

from typing import Any, ClassVar

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.models import EmailAddress
from allauth.core import context
from allauth.core.internal import ratelimit
from django.contrib import messages
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from steering.accounts import locking, mailing, signup
from steering.accounts.emails import give_way
from steering.accounts.models import User
from steering.accounts.origin import client_ip, is_local, site_url

LINK = "accounts.link"  # in the session of a local installation: the link that would have been mailed

SENT = "account/messages/email_confirmation_sent.txt"
SENTENCES = {
    SENT: "A link was sent to {email}. It works for three days.",
    "account/messages/email_confirmed.txt": "{email} is confirmed.",
    "account/messages/email_confirmation_failed.txt": (
        "{email} belongs to another account, so nothing was changed. Use another address."
    ),
    "account/messages/password_changed.txt": "Your password is set. Other sessions of this account have ended.",
    "account/messages/password_set.txt": "Your password is set. Other sessions of this account have ended.",
    "mfa/messages/totp_activated.txt": "Two-step sign-in is on. Keep the recovery codes below in a safe place.",
    "mfa/messages/totp_deactivated.txt": "Two-step sign-in is off.",
    "usersessions/messages/sessions_logged_out.txt": "All other sessions have ended.",
}


class AccountAdapter(DefaultAccountAdapter):
    error_messages: ClassVar[dict[str, Any]] = DefaultAccountAdapter.error_messages | {
        "account_inactive": "This account is switched off. Ask the person who runs this installation.",
        "duplicate_email": "This is your address already.",
        "email_password_mismatch": "No account has this e-mail and password. Check both, or reset the password.",
        "email_taken": "There is an account with this e-mail. Sign in, or use another address.",
        "enter_current_password": "This is not your present password. Type it again, or sign out and reset it.",
        "incorrect_code": "This code does not fit. Wait for the next one and type it, or use a recovery code.",
        "incorrect_password": "This is not your password. Type it again.",
        "invalid_password_reset": "This link no longer works. Ask for a new one.",
        "rate_limited": "That was too often in a short time. Wait a few minutes, then try again.",
        "too_many_login_attempts": "There were too many attempts. Wait 15 minutes, then try again.",
    }

    # ---- who may do what ----

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return signup.may(request)

    def is_email_verified(self, request: HttpRequest, email: str) -> bool:
        """An invitation is for one address, and whoever made it vouches for that."""
        return signup.invited_email(request) == email.lower()

    def is_safe_url(self, url: str) -> bool:
        """Only addresses on this server, without naming it: no list of hosts can be tricked."""
        return url.startswith("/") and url_has_allowed_host_and_scheme(url, allowed_hosts=None)

    def is_ajax(self, request: HttpRequest) -> bool:
        return False  # pages only; programs use keys

    def get_login_stages(self) -> list[str]:
        return ["allauth.account.stages.EmailVerificationStage", "allauth.mfa.stages.AuthenticateStage"]

    def confirm_email(self, request: HttpRequest, email_address: EmailAddress) -> bool:
        """Take an address as proven. False, with a message, where another account uses it."""
        request.session.pop(LINK, None)
        try:
            with transaction.atomic():
                if give_way(email_address):
                    return super().confirm_email(request, email_address)
        except IntegrityError:  # someone else proved the same address at the same moment
            pass
        name = "account/messages/email_confirmation_failed.txt"
        self.add_message(request, messages.ERROR, name, {"email": email_address.email})
        return False

    # ---- guessing ----

    def get_client_ip(self, request: HttpRequest) -> str:
        return client_ip(request)

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """Count guesses at one account from anywhere. Those from one address are counted by axes."""
        key = locking.email_of(request, credentials)
        self._login_failed_rl_usage = ratelimit.consume(request, app="allauth.account", action="password", key=key)
        if not self._login_failed_rl_usage:
            raise self.validation_error("too_many_login_attempts")

    def _delete_login_attempts_cached_email(self, request: HttpRequest, **credentials: Any) -> None:
        """Called once a password was reset through a mail."""
        email = locking.email_of(request, credentials)
        ratelimit.clear(request, app="allauth.account", action="password", key=email)
        locking.unlock(email)

    # ---- what people read ----

    def add_message(
        self,
        request: HttpRequest,
        level: int,
        message_template: str | None = None,
        message_context: dict[str, Any] | None = None,
        extra_tags: str = "",
        message: str | None = None,
    ) -> None:
        """allauth's events in our words; those that go without saying are not said."""
        if message_template == SENT:
            if not request.user.is_authenticated:
                return  # the page that comes next is about nothing else
            level = messages.SUCCESS
        sentence = message or SENTENCES.get(message_template or "", "").format(**(message_context or {}))
        if sentence:
            messages.add_message(request, level, sentence, extra_tags=extra_tags)

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        request = self._request()
        name = template_prefix.rpartition("/")[2]
        mailing.send(name, email, {"email": email, "site_url": site_url(request), **context})

    def send_confirmation_mail(self, request: HttpRequest, emailconfirmation: Any, signup: bool) -> None:
        super().send_confirmation_mail(request, emailconfirmation, signup)
        if is_local(request):
            request.session[LINK] = reverse("account_confirm_email", args=[emailconfirmation.key])

    def get_email_verification_redirect_url(self, email_address: EmailAddress) -> str:
        return reverse("account_email" if self._request().user.is_authenticated else "account_login")

    def get_password_change_redirect_url(self, request: HttpRequest) -> str:
        return reverse("accounts:profile")

    def new_user(self, request: HttpRequest) -> User:
        return User()

    def _request(self) -> HttpRequest:
        """The request this adapter was made for; what happens on commit comes after the request's own context."""
        return self.request or context.request
