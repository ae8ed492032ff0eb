"""Slows down whoever guesses passwords: ten wrong ones for an address, and it waits fifteen minutes."""

from __future__ import annotations

import hashlib
from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from steering.accounts.models import User

WRONG_ALLOWED = 10
WAIT_SECONDS = 15 * 60


class ThrottledBackend(ModelBackend):
    """Passwords, with a limit on wrong ones; every page that asks for a password goes through it."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        email = User.objects.normalize_email(username or kwargs.get(User.USERNAME_FIELD))
        if is_locked(email):
            raise PermissionDenied
        user = super().authenticate(request, username=email, password=password)
        if user is None:
            _count_wrong(email)
        else:
            cache.delete(_key(email))
        return user


def is_locked(email: str) -> bool:
    return cache.get(_key(email), 0) >= WRONG_ALLOWED


def _count_wrong(email: str) -> None:
    cache.add(_key(email), 0, WAIT_SECONDS)
    try:
        cache.incr(_key(email))
    except ValueError:  # it expired between the two lines
        cache.set(_key(email), 1, WAIT_SECONDS)


def _key(email: str) -> str:
    return "signin:" + hashlib.sha256(email.encode()).hexdigest()
