"""Accounts, known by their e-mail address, the one-time links that open them, and invitations to make one."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from datetime import timedelta
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models, transaction
from django.utils import timezone

FIRST_EMAIL = "admin@localhost"


class UserManager(BaseUserManager["User"]):
    @classmethod
    def normalize_email(cls, email: str | None) -> str:
        return (email or "").strip().lower()

    def get_by_natural_key(self, email: str | None) -> User:
        return self.get(email=self.normalize_email(email))

    @transaction.atomic
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """An account whose address is taken as proven: who calls this knows the person.

        Without a password it can only be entered through a sign-in link, until one is set.
        """
        from steering.accounts.emails import vouch_for

        user = self.model(email=self.normalize_email(email), **fields)
        user.set_password(password)
        user.save()
        vouch_for(user)
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


class InvitationManager(models.Manager["Invitation"]):
    def issue(self, email: str, invited_by: User | None) -> tuple[Invitation, str]:
        """An invitation and its token, of which only the hash is stored. An earlier one for the address ends."""
        token = secrets.token_urlsafe(32)
        with transaction.atomic():
            email = User.objects.normalize_email(email)
            self.filter(email=email, used_at=None, revoked_at=None).update(revoked_at=timezone.now())
            made = self.create(
                email=email,
                digest=_digest(token),
                invited_by=invited_by,
                expires_at=timezone.now() + Invitation.LIFETIME,
            )
        return made, token

    def live(self, token: str) -> Invitation | None:
        """The invitation a token opens, or None when it was used, revoked, has expired or never was."""
        return self._live().filter(digest=_digest(token)).first()

    def redeem(self, invitation: Invitation) -> bool:
        """Use it up. False where it was used, revoked or grew too old meanwhile; of two at once, one wins.

        To be called in the transaction that makes the account, so that a failure gives the invitation back.
        """
        return bool(self._live().filter(pk=invitation.pk).update(used_at=timezone.now()))

    def _live(self) -> models.QuerySet[Invitation]:
        return self.filter(used_at=None, revoked_at=None, expires_at__gt=timezone.now())


class Invitation(models.Model):
    LIFETIME = timedelta(days=7)

    email = models.EmailField("e-mail")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    invited_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="invitations")
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    objects = InvitationManager()

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"for {self.email}, {self.state}"

    @property
    def state(self) -> str:
        if self.used_at:
            return "used"
        if self.revoked_at:
            return "taken back"
        return "waiting" if self.expires_at > timezone.now() else "expired"


class ProgramLogin(models.Model):
    """A program in which a person typed their password: it holds tokens until it logs out, or the password changes.

    `proof` is what the password was when it was typed; `created_at` is when. The row goes when the log-in ends.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="program_logins")
    proof = models.CharField(max_length=64, editable=False)
    program = models.CharField(max_length=200, blank=True)
    address = models.CharField(max_length=45, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    refreshed_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(editable=False)

    class Meta:
        ordering = ("-refreshed_at",)

    def __str__(self) -> str:
        return f"{self.name} of {self.user}"

    @property
    def name(self) -> str:
        """What the program calls itself, without its version."""
        return self.program.partition("/")[0][:40] or "a program without a name"


class RefreshToken(models.Model):
    """What a log-in is gone on with, once. Only its hash is stored."""

    login = models.ForeignKey(ProgramLogin, on_delete=models.CASCADE, related_name="refresh_tokens")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    used_at = models.DateTimeField(null=True, editable=False)

    def __str__(self) -> str:
        return f"of {self.login}"
