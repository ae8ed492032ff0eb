"""What the tests of accounts share: signing in as people do, and reading the mail."""

from __future__ import annotations

import re
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal import auth
from django.core import mail
from django.core.cache import cache
from django.test import Client

from steering.accounts.models import User

PASSWORD = "seven calm cats by the river"
OTHER = "eleven loud dogs on the hill"
LINK = re.compile(r"https?://[^/\s]+(/accounts/\S+)")


def with_password(user: User, password: str = PASSWORD) -> User:
    user.set_password(password)
    user.save()
    return user


def sign_in(client: Client, email: str, password: str = PASSWORD, **extra: str) -> Any:
    return client.post("/accounts/signin/", {"login": email, "password": password, **extra})


def signed_in(client: Client) -> bool:
    return "_auth_user_id" in client.session


def come_in(user: User) -> Client:
    """A client that signed in with the password, and has just typed it once more."""
    client = Client()
    assert sign_in(client, user.email).status_code == 302
    again(client)
    return client


def again(client: Client, password: str = PASSWORD) -> Any:
    return client.post("/accounts/again/", {"password": password})


def link_in_mail(index: int = -1) -> str:
    """The path of the first link in a mail."""
    found = LINK.search(mail.outbox[index].body)
    assert found, mail.outbox[index].body
    return found[1]


def code_of(secret: str) -> str:
    return auth.format_hotp_value(auth.hotp_value(secret, next(auth.yield_hotp_counters_from_time())))


def with_totp(user: User) -> str:
    """Give `user` a second step; its secret."""
    secret = auth.generate_totp_secret()
    auth.TOTP.activate(user, secret)
    return secret


def fresh_code(secret: str) -> str:
    """The code of now, as if it was not used yet."""
    cache.clear()
    return code_of(secret)


def has_totp(user: User) -> bool:
    return Authenticator.objects.filter(user=user, type="totp").exists()
