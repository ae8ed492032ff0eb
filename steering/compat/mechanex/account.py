"""Signing up, logging in, and what a person changes of their account."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from steering.access.principal import Principal
from steering.accounts import deletion, logins, programs
from steering.accounts.models import User
from steering.accounts.origin import client_ip
from steering.api.openai.body import Fields
from steering.api.openai.errors import ApiError
from steering.audit.models import AuditEntry
from steering.audit.trail import record
from steering.compat.mechanex.wire import operation
from steering.threads import in_thread

LINK_SENT = "A link was sent to {email}. Open it, then log in."


@operation(asks=False)
async def signup(request: HttpRequest, who: None, body: Fields) -> dict[str, Any]:
    """`session` is null where the address has to be proven first, and for one that has an account already."""
    return await in_thread(_sign_up)(request, *_credentials(body))


@sensitive_variables("password")
def _sign_up(request: HttpRequest, email: str, password: str) -> dict[str, Any]:
    user = programs.sign_up(request, email, password)
    if user is None:
        return {"user": {"id": "", "email": email}, "session": None, "message": LINK_SENT.format(email=email)}
    return {"user": user_json(user), "session": _begin(request, user)}


@operation(asks=False)
async def login(request: HttpRequest, who: None, body: Fields) -> dict[str, Any]:
    return await in_thread(_log_in)(request, *_credentials(body))


@sensitive_variables("password")
def _log_in(request: HttpRequest, email: str, password: str) -> dict[str, Any]:
    user = programs.log_in(request, email, password)
    if user.is_staff:
        record(AuditEntry.Action.STAFF_SIGNED_IN, user.email, actor=user, program=_program(request))
    return {"user": user_json(user), "session": _begin(request, user)}


@operation(asks=False)
async def refresh(request: HttpRequest, who: None, body: Fields) -> dict[str, Any]:
    return await in_thread(_go_on)(body.required_text("refresh_token"))


@sensitive_variables("token")
def _go_on(token: str) -> dict[str, Any]:
    try:
        found, tokens = logins.go_on(token)
    except logins.NotLoggedIn as error:
        if error.user is not None:
            record(AuditEntry.Action.TOKEN_REUSED, error.user.email, actor=error.user)
        raise ApiError(401, error.code, error.sentence) from None
    return {"user": user_json(found.user), "session": _session(tokens)}


@operation()
async def logout(request: HttpRequest, who: Principal, body: Fields) -> dict[str, Any]:
    """Not among the client's own: it forgets its tokens and tells nobody."""
    if who.login is None:
        raise ApiError(403, "log_in", "A key does not log out. Revoke it on the page Keys & usage.")
    await in_thread(logins.end)(who.login)
    return {"message": "Logged out. The tokens of this log-in open nothing any more."}


@operation(method="GET")
async def whoami(request: HttpRequest, who: Principal, body: Fields) -> dict[str, Any]:
    return user_json(who.user)


@operation()
async def change_password(request: HttpRequest, who: Principal, body: Fields) -> dict[str, Any]:
    """Without `new_password` a link to set one is sent by mail."""
    password = body.text("new_password")
    if password is None:
        await in_thread(programs.send_reset)(request, who.user.email)
        return {"message": f"A link to set a new password was sent to {who.user.email}."}
    found = programs.require_recent(who.login, "change a password")
    await in_thread(programs.change_password)(request, found, password)
    return {"message": "The password is changed. All other sessions and log-ins of this account have ended."}


@operation()
async def change_email(request: HttpRequest, who: Principal, body: Fields) -> dict[str, Any]:
    email = body.required_text("new_email")
    programs.require_recent(who.login, "change the e-mail")
    await in_thread(programs.change_email)(request, who.user, email)
    return {"message": f"A link was sent to {email}. The address counts once it is opened."}


@operation(asks=False)
async def forgot_password(request: HttpRequest, who: None, body: Fields) -> dict[str, Any]:
    email = body.required_text("email")
    await in_thread(programs.send_reset)(request, email)
    return {"message": f"A mail was sent to {email}. If it has an account, the link there sets a new password."}


@operation(method="DELETE")
async def delete(request: HttpRequest, who: Principal, body: Fields) -> dict[str, Any]:
    programs.require_recent(who.login, "delete an account")
    try:
        await in_thread(deletion.delete_account)(who.user)
    except deletion.LastAdministrator:
        said = "This is the last administrator. Make someone else a superuser first, on the admin pages."
        raise ApiError(409, "last_administrator", said) from None
    return {"message": "The account and what belonged to it are deleted."}


def user_json(user: User) -> dict[str, Any]:
    return {"id": str(user.pk), "email": user.email, "name": user.name, "created_at": user.date_joined}


def _credentials(body: Fields) -> tuple[str, str]:
    return body.required_text("email").strip(), body.required_text("password")


def _begin(request: HttpRequest, user: User) -> dict[str, Any]:
    return _session(logins.begin(user, program=_program(request), address=client_ip(request)))


def _program(request: HttpRequest) -> str:
    return request.headers.get("User-Agent", "")[:200]


def _session(tokens: logins.Tokens) -> dict[str, Any]:
    return {
        "access_token": tokens.access,
        "refresh_token": tokens.refresh,
        "expires_in": tokens.expires_in,
        "token_type": "bearer",
    }
