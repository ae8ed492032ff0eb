"""Log-ins of programs: a short access token, which is a JWT, and a refresh token that is exchanged for the next two.

A refresh token is good once. Two processes of one person may read the same one from the same file, so that within some
seconds it is good twice; whoever shows it later has stolen it, or was stolen from, and the log-in ends. A log-in also
ends with a change of password, with the account, and when a second step is set up. Synchronous.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import jwt
from allauth.account import app_settings as allauth_settings
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.views.decorators.debug import sensitive_variables

from steering.accounts.models import ProgramLogin, RefreshToken, User

ISSUER = "steerboard"
ALGORITHM = "HS256"
ACCESS_LIFE = timedelta(hours=1)
REFRESH_LIFE = timedelta(days=30)  # since the last refresh
TWICE = timedelta(seconds=30)
KEPT = timedelta(days=7)  # for so long a used token is known, so that a thief of it is noticed
START = "sb-rt-"
REUSED = (
    "This refresh token was used before, so that somebody else may hold it: its log-in has ended. Log in again, and "
    "change the password if that was not you."
)


class NotLoggedIn(Exception):
    """`code` is bad_token, expired_token or reused_token; `user` is whose log-in ended by the attempt."""

    def __init__(self, code: str, sentence: str, user: User | None = None):
        super().__init__(sentence)
        self.code, self.sentence, self.user = code, sentence, user


@dataclass(frozen=True)
class Tokens:
    """`expires_in` is in seconds and is the access token's."""

    access: str
    refresh: str
    expires_in: int


def begin(user: User, *, program: str = "", address: str = "") -> Tokens:
    """A log-in of `user`, whose password was typed just now."""
    ProgramLogin.objects.filter(user=user, expires_at__lte=timezone.now()).delete()
    with transaction.atomic():
        login = ProgramLogin.objects.create(
            user=user,
            proof=user.get_session_auth_hash(),
            program=program[:200],
            address=address,
            expires_at=timezone.now() + REFRESH_LIFE,
        )
        return _tokens(login)


@sensitive_variables("refresh")
def go_on(refresh: str) -> tuple[ProgramLogin, Tokens]:
    """The next tokens in exchange for a refresh token. Raises NotLoggedIn."""
    token = RefreshToken.objects.select_related("login__user").filter(digest=_digest(refresh)).first()
    if token is None or not _holds(token.login):
        raise NotLoggedIn("bad_token", "This refresh token is not known here, or its log-in has ended. Log in again.")
    now = timezone.now()
    if not RefreshToken.objects.filter(pk=token.pk, used_at=None).update(used_at=now):
        token.refresh_from_db(fields=["used_at"])
        if token.used_at is not None and now - token.used_at > TWICE:
            token.login.delete()
            said = "This refresh token was used before, so that somebody else may hold it: its log-in has ended. Log in"
            raise NotLoggedIn(
                "reused_token", f"{said} again, and change the password if this was not you.", token.login.user
            )
    try:
        with transaction.atomic():
            ProgramLogin.objects.filter(pk=token.login.pk).update(refreshed_at=now, expires_at=now + REFRESH_LIFE)
            RefreshToken.objects.filter(login=token.login, used_at__lt=now - KEPT).delete()
            return token.login, _tokens(token.login)
    except IntegrityError:  # the log-in ended in this moment
        raise NotLoggedIn("bad_token", "This log-in has just ended. Log in again.") from None


def is_access_token(secret: str) -> bool:
    """By its looks: keys have no dots."""
    return secret.startswith("eyJ") and secret.count(".") == 2


@sensitive_variables("access")
def opened_by(access: str) -> ProgramLogin:
    """The log-in of an access token, with its user. Raises NotLoggedIn."""
    try:
        claims = jwt.decode(
            access,
            _key(),
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            options={"require": ["exp", "iat", "sub", "sid"]},
        )
        login_id = UUID(str(claims["sid"]))
    except jwt.ExpiredSignatureError:
        raise NotLoggedIn("expired_token", "This access token has expired. Refresh it, or log in again.") from None
    except (jwt.InvalidTokenError, ValueError):
        raise NotLoggedIn("bad_token", "This access token is not one of this server. Log in again.") from None
    login = ProgramLogin.objects.select_related("user").filter(pk=login_id).first()
    if login is None or str(login.user_id) != claims["sub"] or not _holds(login):
        raise NotLoggedIn("bad_token", "The log-in of this access token has ended. Log in again.")
    return login


def holds(login: ProgramLogin) -> bool:
    """Whether a log-in goes on, fresh from the database."""
    found = ProgramLogin.objects.select_related("user").filter(pk=login.pk).first()
    return found is not None and _holds(found)


def is_recent(login: ProgramLogin) -> bool:
    """Whether the password was typed a short while ago, as pages ask for it before they change an account."""
    return timezone.now() - login.created_at < timedelta(seconds=allauth_settings.REAUTHENTICATION_TIMEOUT)


def keep_only(login: ProgramLogin, user: User) -> None:
    """After a change of password: this log-in goes on, all others of the person end."""
    ProgramLogin.objects.filter(user=user).exclude(pk=login.pk).delete()
    ProgramLogin.objects.filter(pk=login.pk).update(proof=user.get_session_auth_hash())


def end(login: ProgramLogin) -> None:
    ProgramLogin.objects.filter(pk=login.pk).delete()


def end_all(user: Any) -> None:
    ProgramLogin.objects.filter(user=user).delete()


def of(user: User) -> list[ProgramLogin]:
    """Those that go on, the one used last first."""
    return [login for login in ProgramLogin.objects.filter(user=user).select_related("user") if _holds(login)]


def _holds(login: ProgramLogin) -> bool:
    same = constant_time_compare(login.proof, login.user.get_session_auth_hash())
    return same and login.user.is_active and login.expires_at > timezone.now()


def _tokens(login: ProgramLogin) -> Tokens:
    now = timezone.now()
    claims = {
        "iss": ISSUER,
        "sub": str(login.user_id),
        "sid": login.pk.hex,
        "iat": now,
        "exp": now + ACCESS_LIFE,
        "jti": secrets.token_hex(8),
    }
    refresh = START + secrets.token_urlsafe(32)
    RefreshToken.objects.create(login=login, digest=_digest(refresh))
    return Tokens(jwt.encode(claims, _key(), algorithm=ALGORITHM), refresh, int(ACCESS_LIFE.total_seconds()))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _key() -> bytes:
    return hashlib.sha256(b"steerboard.access-token" + settings.SECRET_KEY.encode()).digest()
