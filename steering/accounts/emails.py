"""Addresses of accounts as allauth keeps them, beside `User.email`, which is always the proven one."""

from __future__ import annotations

from allauth.account.models import EmailAddress
from django.db import transaction

from steering.accounts.models import User


@transaction.atomic
def vouch_for(user: User) -> None:
    """Take the address of `user` as proven, because someone with the right to do so says so. Others of theirs go.

    For accounts made or changed by staff or on the console; everyone else proves an address with a link.
    """
    EmailAddress.objects.filter(user=user).exclude(email=user.email).delete()
    EmailAddress.objects.update_or_create(user=user, email=user.email, defaults={"verified": True, "primary": True})


def give_way(address: EmailAddress) -> bool:
    """Make room for `address`, whose owner has just proved it: a claim on it that nobody ever proved, or used, goes.

    False where another account uses the address; then it stays with that one.
    """
    others = User.objects.filter(email=address.email).exclude(pk=address.user_id)
    if others.filter(last_login__isnull=False).exists() or others.filter(emailaddress__verified=True).exists():
        return False
    others.delete()
    return True
