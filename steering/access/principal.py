"""Who asks: a person in a browser, or a program with a key of theirs or in which they logged in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from steering.access.denied import Denied
from steering.access.keys import find_key, note_use
from steering.access.models import SECRET_START, ApiKey
from steering.accounts import logins
from steering.accounts.models import ProgramLogin, User

__all__ = ["Denied", "Principal", "opened_by", "principal_of", "valid"]

HOW = "Send it as “Authorization: Bearer sk-sb-…”; keys are made on the page Keys & usage."


@dataclass(frozen=True)
class Principal:
    """`key` is None for a person's own session, and for a program in which they logged in, which is `login`.

    `key.digest` is the one that was shown, so a rotated key is noticed.
    """

    user: User
    key: ApiKey | None = None
    login: ProgramLogin | None = None

    def require(self, scope: str) -> None:
        """A session has every scope but admin, which takes a member of staff, with a key as without."""
        if scope == "admin" and not self.user.is_staff:
            raise Denied(403, "missing_scope", "Only an administrator may do this. Ask whoever runs this server.")
        if self.key is not None and scope not in self.key.scopes:
            raise Denied(
                403,
                "missing_scope",
                f"The key “{self.key.name}” may not do this: it lacks the scope “{scope}”. Use a key that has it, or "
                "make one on the page Keys & usage.",
            )

    def require_model(self, model_id: str) -> None:
        """`model_id` is the full id of a served model; a preset's name counts as its model's. Case does not matter."""
        if self.key is None or not self.key.models:
            return
        wanted = model_id.partition("::")[0].lower()
        if wanted not in {allowed.lower() for allowed in self.key.models}:
            raise Denied(
                403,
                "model_not_allowed",
                f"The key “{self.key.name}” may not use the model “{model_id}”. It may use: "
                f"{', '.join(self.key.models)}.",
            )


def principal_of(request: HttpRequest) -> Principal:
    """Who sent this request. A key that is wrong is refused even where there is a session.

    Raises Denied: 401 without a valid key or session; 403 "csrf" for a session's change without the form's token.
    """
    found = _found(request)
    request.principal = found  # type: ignore[attr-defined]  # for the log's line on this request
    return found


def _found(request: HttpRequest) -> Principal:
    secret = _secret_of(request)
    if secret is not None:
        return opened_by(secret)
    user: Any = getattr(request, "user", None)
    if not isinstance(user, User) and not getattr(user, "is_authenticated", False):
        raise _unauthorized("missing_key", f"This needs an API key. {HOW}")
    _refuse_forged(request)
    return Principal(user)


def valid(principals: Sequence[Principal]) -> list[bool]:
    """Of each, fresh from the database: account active, key or log-in neither ended nor expired.

    One query for all with keys, one for all with neither key nor log-in.
    """
    keys = {who.key.pk for who in principals if who.key is not None}
    people = {who.user.pk for who in principals if who.key is None and who.login is None}
    usable = set(ApiKey.objects.usable().filter(pk__in=keys).values_list("pk", "digest")) if keys else set()
    active = set(User.objects.filter(pk__in=people, is_active=True).values_list("pk", flat=True)) if people else set()

    def holds(who: Principal) -> bool:
        if who.login is not None:
            return logins.holds(who.login)
        return who.user.pk in active if who.key is None else (who.key.pk, who.key.digest) in usable

    return [holds(who) for who in principals]


@sensitive_variables("secret", "bearer", "plain")
def _secret_of(request: HttpRequest) -> str | None:
    authorization = request.headers.get("Authorization")
    plain = request.headers.get("X-API-Key")
    bearer = None
    if authorization is not None:
        scheme, _, bearer = authorization.strip().partition(" ")
        bearer = bearer.strip()
        if scheme.lower() != "bearer" or not bearer:
            raise _unauthorized("invalid_key", f"The Authorization header is not one that holds a key. {HOW}")
    if bearer is not None and plain is not None and bearer != plain.strip():
        raise _unauthorized("invalid_key", "Authorization and X-API-Key hold different keys. Send one of them.")
    return bearer if plain is None else plain.strip()


@sensitive_variables("secret")
def opened_by(secret: str) -> Principal:
    """Whom a key or a log-in's token stands for, wherever it came from.

    Raises Denied(401): unknown, revoked, expired, account off.
    """
    if logins.is_access_token(secret):
        return _logged_in(secret)
    key = find_key(secret)
    if key is None:
        hint = "" if secret.startswith(SECRET_START) else f" Keys of this server begin with {SECRET_START}."
        raise _unauthorized("invalid_key", f"This API key is not known here.{hint} {HOW}")
    if key.revoked_at is not None:
        raise _unauthorized("revoked_key", f"The key {key.shown} was revoked. Make a new one on Keys & usage.")
    if key.expires_at is not None and key.expires_at <= timezone.now():
        raise _unauthorized("expired_key", f"The key {key.shown} has expired. Make a new one on Keys & usage.")
    if not key.owner.is_active:
        raise _unauthorized("account_inactive", "The account of this key is switched off. Ask an administrator.")
    note_use(key)
    return Principal(key.owner, key)


@sensitive_variables("token")
def _logged_in(token: str) -> Principal:
    try:
        login = logins.opened_by(token)
    except logins.NotLoggedIn as error:
        raise _unauthorized(error.code, error.sentence) from None
    return Principal(login.user, login=login)


def _unauthorized(code: str, message: str) -> Denied:
    return Denied(401, code, message, headers={"WWW-Authenticate": 'Bearer realm="steerboard"'})


class _Csrf(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason


def _refuse_forged(request: HttpRequest) -> None:
    """For views that are exempt from the middleware's check because programs with keys use them too."""
    check = _Csrf(lambda request: None)  # type: ignore[arg-type]
    check.process_request(request)
    if check.process_view(request, HttpResponse, (), {}):
        raise Denied(
            403,
            "csrf",
            "This change came without the page's token. Send it with X-CSRFToken, or use an API key instead.",
        )
