"""Payments and the wait-list of the hosted service, answered for a server that takes no money."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest

from steering.access.principal import Principal
from steering.accounts import signup
from steering.accounts.models import User
from steering.api.openai.body import Fields
from steering.api.openai.errors import ApiError
from steering.compat.mechanex.wire import operation

FREE = "This server is self-hosted and sells nothing. How much one may use is set by whoever runs it."


@operation(method="GET", asks=False)
async def subscriptions(request: HttpRequest, who: None, body: Fields) -> list[Any]:
    """A bare list: of an object the client's command line makes an empty table."""
    return []


@operation()
async def checkout(request: HttpRequest, who: Principal, body: Fields) -> dict[str, Any]:
    raise ApiError(404, "nothing_to_buy", FREE)


@operation(method="GET", anonymous=True)
async def waitlist(request: HttpRequest, who: Principal | None, body: Fields) -> dict[str, Any]:
    """There is no list. Whether somebody else has an account, or an invitation, is told to nobody."""
    email = request.GET.get("email", "").strip().replace(" ", "+")  # the client sends a plus as it is
    if "@" not in email:
        raise ApiError(422, "email", "Name the e-mail: /waitlist/check?email=….")
    if settings.SIGNUP == signup.OPEN:
        return _answer(email, "pre_approved", "Anyone may sign up here.")
    if who is not None and who.user.email == User.objects.normalize_email(email):
        return _answer(email, "approved", "You have an account.")
    said = "Here one signs up by invitation." if settings.SIGNUP == signup.INVITATION else "Nobody can sign up here."
    return _answer(email, "not_approved", f"{said} Ask whoever runs this server.")


def _answer(email: str, reason: str, message: str) -> dict[str, Any]:
    return {"email": email, "approved": reason != "not_approved", "reason": reason, "message": message}
