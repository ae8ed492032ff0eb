"""Accounts, known by their e-mail address, and the one-time links that open them."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models
from django.utils import timezone

FIRST_EMAIL = "admin@localhost"


class UserManager(BaseUserManager["User"]):
    @classmethod
    def normalize_email(cls, email: str | None) -> str:
        return (email or "").strip().lower()

    def get_by_natural_key(self, email: str | None) -> User:
        return self.get(email=self.normalize_email(email))

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """Without a password the account can only be entered through a sign-in link."""
        user = self.model(email=self.normalize_email(email), **fields)
        user.set_password(password)
        user.save()
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)

    def first_account(self) -> User:
        """The account of the person who installed this, made when there is none."""
        admin = self.filter(is_superuser=True, is_active=True).order_by("pk").first()
        return admin or self.create_superuser(FIRST_EMAIL, name="Admin")


class User(AbstractBaseUser, PermissionsMixin):
    email = models.EmailField("e-mail", unique=True, error_messages={"unique": "There is an account with this e-mail."})
    name = models.CharField(max_length=80, blank=True)
    is_staff = models.BooleanField("may use the admin pages", default=False)
    is_active = models.BooleanField("may sign in", default=True)
    date_joined = models.DateTimeField(default=timezone.now)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects = UserManager()

    def __str__(self) -> str:
        return self.name or self.email

    def get_full_name(self) -> str:
        return str(self)

    def get_short_name(self) -> str:
        return str(self)

    @property
    def initials(self) -> str:
        """Two letters for the round button that opens the account menu."""
        words = (self.name or self.email.partition("@")[0]).replace(".", " ").split()
        letters = words[0][0] + words[-1][0] if len(words) > 1 else (words[0][:2] if words else "?")
        return letters.upper()


class SigninLinkManager(models.Manager["SigninLink"]):
    def issue(self, user: User) -> str:
        """A token that signs `user` in once within the next 15 minutes. Only its hash is stored."""
        token = secrets.token_urlsafe(32)
        self.filter(expires_at__lt=timezone.now()).delete()
        self.create(user=user, digest=_digest(token), expires_at=timezone.now() + SigninLink.LIFETIME)
        return token

    def redeem(self, token: str) -> User | None:
        """The account the token opens, or None when it was used, has expired or never was."""
        live = self.filter(digest=_digest(token), used_at=None, expires_at__gt=timezone.now(), user__is_active=True)
        if not live.update(used_at=timezone.now()):  # one statement: of two requests with one token, one wins
            return None
        return self.select_related("user").get(digest=_digest(token)).user


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class SigninLink(models.Model):
    LIFETIME = timedelta(minutes=15)

    user = models.ForeignKey(User, on_delete=models.CASCADE)
    digest = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    objects = SigninLinkManager()

    def __str__(self) -> str:
        return f"for {self.user}, until {self.expires_at:%H:%M}"
