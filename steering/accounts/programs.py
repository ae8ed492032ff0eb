"""Signing up and logging in from a program: what the pages check, without a browser.

A program has no session: what allauth puts there, and into messages, goes nowhere. Synchronous.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from allauth.account.adapter import get_adapter
from allauth.account.internal.flows.email_verification import send_verification_email_to_address
from allauth.account.models import EmailAddress
from allauth.account.signals import password_changed, user_signed_up
from allauth.core import ratelimit
from axes.utils import reset
from django.conf import settings
from django.contrib.auth.models import update_last_login
from django.contrib.messages.storage import default_storage
from django.contrib.sessions.backends.db import SessionStore
from django.core.exceptions import ValidationError
from django.forms import Form
from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from steering.accounts import locking, logins, signup, totp
from steering.accounts.forms import EmailForm, ResetForm, SignUpForm
from steering.accounts.mailing import MailNotSent
from steering.accounts.models import ProgramLogin, User
from steering.accounts.origin import client_ip, is_local

LONGEST = 1000  # characters of a password that are worth hashing
TOO_OFTEN = "That was too often in a short time. Wait a few minutes, then try again."
MISMATCH = "No account has this e-mail and password. Check both, or reset the password on the sign-in page."


class Refused(Exception):
    """`status` is 401, 403, 409, 422 or 429; `code` is stable."""

    def __init__(self, status: int, code: str, sentence: str, retry_after: int | None = None):
        super().__init__(sentence)
        self.status, self.code, self.sentence, self.retry_after = status, code, sentence, retry_after


@contextmanager
def without_session(request: HttpRequest, user: User | None = None) -> Iterator[None]:
    """Lets allauth work on a request whose session and messages are thrown away, as `user`."""
    kept = {name: getattr(request, name, None) for name in ("session", "_messages", "user")}
    request.session = SessionStore()
    request._messages = default_storage(request)  # type: ignore[attr-defined]
    if user is not None:
        request.user = user
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(request, name, value)


# ---- coming in ----


@sensitive_variables("password")
def log_in(request: HttpRequest, email: str, password: str) -> User:
    """The account that this password opens. Raises Refused; as slow for an address that nobody has."""
    if not ratelimit.consume(request, action="login"):
        raise Refused(429, "rate_limited", TOO_OFTEN, retry_after=60)
    if len(email) > LONGEST or len(password) > LONGEST or "\0" in email:  # which no database can be asked for
        raise Refused(401, "mismatch", MISMATCH)
    try:
        with without_session(request):
            user = get_adapter(request).authenticate(
                request, email=User.objects.normalize_email(email), password=password
            )
    except ValidationError as error:
        raise Refused(429, "rate_limited", " ".join(error.messages), retry_after=_cooloff()) from None
    if getattr(request, "axes_locked_out", False):
        request.axes_locked_out = False  # type: ignore[attr-defined]  # else axes answers with a page
        raise Refused(429, "locked", locking.SENTENCE, retry_after=_cooloff())
    if not isinstance(user, User):
        raise Refused(401, "mismatch", MISMATCH)
    _check_may_enter(user)
    reset(username=user.email, ip=client_ip(request))
    update_last_login(User, user)
    return user


def _check_may_enter(user: User) -> None:
    """For somebody who has typed the right password."""
    if not user.is_active:
        said = "This account is switched off. Ask the person who runs this installation."
        raise Refused(401, "account_inactive", said)
    if not EmailAddress.objects.filter(user=user, email=user.email, verified=True).exists():
        said = "Your e-mail is not confirmed yet. Open the link that was sent to it, then log in."
        raise Refused(401, "email_unconfirmed", said)
    if totp.has(user):
        raise Refused(
            401,
            "second_step",
            "This account has two-step sign-in, which a program cannot ask for. Sign in with a browser, make a key on "
            "the page Keys & usage, and give the program that key.",
        )
    if totp.missing(user):
        raise Refused(
            401,
            "second_step_missing",
            "Whoever runs this installation needs two-step sign-in. Sign in with a browser, set it up there, make a "
            "key on the page Keys & usage, and give the program that key.",
        )


def _cooloff() -> int:
    return int(settings.AXES_COOLOFF_TIME.total_seconds())


@sensitive_variables("password")
def sign_up(request: HttpRequest, email: str, password: str) -> User | None:
    """A new account that may log in at once; None where a link in a mail comes first. Raises Refused.

    For an address that has an account it is None as well, and its owner gets a mail that says so. An invitation is used
    up on its page alone, so that only where anyone may sign up a program may.
    """
    if settings.SIGNUP != signup.OPEN:
        raise Refused(403, "signup_closed", _closed())
    if not ratelimit.consume(request, action="signup"):
        raise Refused(429, "rate_limited", TOO_OFTEN, retry_after=3600)
    _check_length(password)
    with without_session(request):
        form = SignUpForm({"email": email, "password1": password, "password2": password})
        _check(form)
        if is_local(request):  # where the page would show the link itself
            signup.vouch(request, form.cleaned_data["email"])
        user, _ = form.try_save(request)
        if user is None:
            return None
        user_signed_up.send(sender=User, request=request, user=user)
        address = EmailAddress.objects.get(user=user)
        if address.verified:
            return user
        send_verification_email_to_address(request, address, signup=True)
    return None


def _closed() -> str:
    if settings.SIGNUP == signup.INVITATION:
        return (
            "Here one signs up by invitation, made by whoever runs this server. Open its link in a browser, make the "
            "account there, then log in."
        )
    return "Nobody can sign up here. Ask whoever runs this server for an account, then log in."


# ---- changing an account ----


def require_recent(login: ProgramLogin | None, what: str) -> ProgramLogin:
    """Raises Refused unless a password was typed a short while ago, as the pages ask for it."""
    if login is None:
        raise Refused(
            403,
            "log_in",
            f"A key cannot {what}. Log in with e-mail and password, or do it on the page of your account.",
        )
    if not logins.is_recent(login):
        said = f"To {what}, log in again first, and do it within five minutes; or use the page of your account."
        raise Refused(403, "log_in_again", said)
    return login


@sensitive_variables("password")
def change_password(request: HttpRequest, login: ProgramLogin, password: str) -> None:
    """Ends every other log-in and every session. Raises Refused."""
    user = login.user
    adapter = get_adapter(request)
    _count(request, "change_password", user)
    _check_length(password)
    try:
        adapter.clean_password(password, user=user)
    except ValidationError as error:
        raise Refused(422, "password", " ".join(error.messages)) from None
    with without_session(request, user):
        adapter.set_password(user, password)
        logins.keep_only(login, user)
        password_changed.send(sender=User, request=request, user=user)
        with suppress(MailNotSent):  # which is in the log; the password is changed all the same
            adapter.send_notification_mail("account/email/password_changed", user)


def send_reset(request: HttpRequest, email: str) -> None:
    """A link to set a new password, or a mail that there is no account. Raises Refused."""
    with without_session(request):
        form = ResetForm({"email": email})
        _check(form)
        if not ratelimit.consume(request, action="reset_password", key=form.cleaned_data["email"].lower()):
            raise Refused(429, "rate_limited", TOO_OFTEN, retry_after=900)
        form.save(request)


def change_email(request: HttpRequest, user: User, email: str) -> None:
    """Send a link to the new address, which counts once that is opened. Raises Refused."""
    _count(request, "manage_email", user)
    with without_session(request, user):
        form = EmailForm(data={"email": email}, user=user)
        _check(form)
        form.save(request)


def _count(request: HttpRequest, action: str, user: User) -> None:
    """As often as on the pages, and counted together with them. Raises Refused."""
    if not ratelimit.consume(request, action=action, user=user):
        raise Refused(429, "rate_limited", TOO_OFTEN, retry_after=60)


@sensitive_variables("password")
def _check_length(password: str) -> None:
    if len(password) > LONGEST:
        raise Refused(422, "password", f"A password has at most {LONGEST:,} characters. Choose a shorter one.")


def _check(form: Form) -> None:
    """Raises Refused with the first sentence of each field."""
    if form.errors:
        said = {name.rstrip("12"): errors[0] for name, errors in reversed(form.errors.items())}
        raise Refused(422, "invalid", " ".join(f"{name}: {sentence}" for name, sentence in said.items()))
