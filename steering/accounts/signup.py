"""Who may make an account: anyone, those with an invitation, or nobody, as SIGNUP says."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest

from steering.accounts.models import Invitation, User

OPEN, INVITATION, CLOSED = "open", "invitation", "closed"
SESSION_KEY = "accounts.invitation"  # the token, from the click on the link to the end of the sign-up


class InvitationSpent(Exception):
    """Someone else used the invitation, or it was taken back, while the form was open."""


def accepts_invitations() -> bool:
    return settings.SIGNUP in (OPEN, INVITATION)


def may(request: HttpRequest) -> bool:
    return settings.SIGNUP == OPEN or invitation_of(request) is not None


def invitation_of(request: HttpRequest) -> Invitation | None:
    """The invitation this browser has opened, as long as it still works."""
    token = request.session.get(SESSION_KEY)
    return Invitation.objects.live(token) if token and accepts_invitations() else None


def use(request: HttpRequest, invitation: Invitation) -> None:
    """From here on the account that this request makes is the invited one."""
    request.session.pop(SESSION_KEY, None)
    request.invited_email = invitation.email  # type: ignore[attr-defined]


def invited_email(request: HttpRequest) -> str | None:
    """The address that whoever made the invitation vouches for, in the request that uses it up."""
    return getattr(request, "invited_email", None)


def vouch(request: HttpRequest, email: str) -> None:
    """Take the address of the account that this request makes as proven."""
    request.invited_email = User.objects.normalize_email(email)  # type: ignore[attr-defined]
