"""Keys, limits and the ledger. The ledger is the truth; counters are sums of it that one UPDATE can check and raise."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Self

from django.conf import settings
from django.contrib.auth.models import Group
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models.functions import Now
from django.urls import reverse
from django.utils import timezone

from steering.accounts.ownership import OwnedQuerySet

SCOPES = ("generate", "vectors", "datasets", "jobs", "admin")
SECRET_START = "sk-sb-"  # noqa: S105  what all of them begin with
OWN = "own"  # prefixes of keys whose secret somebody chose begin so; it says nothing of the secret
CARRIER_SECONDS = 30  # a process that was not heard of for so long is gone, and what it had reserved is given back
LONGEST_HOURS = 24  # no process holds anything for longer


def _count(**options: object) -> models.PositiveIntegerField:
    return models.PositiveIntegerField(null=True, blank=True, **options)  # type: ignore[arg-type]


class LimitFields(models.Model):
    """Limits of one subject; an empty field means that there is none."""

    requests_per_minute = _count(help_text="Empty: no limit.")
    tokens_per_day = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="Prompt and answer together, from midnight to midnight UTC. Empty: no limit."
    )
    concurrent_runs = _count(help_text="Requests, runs and jobs at the same time. Empty: no limit.")

    class Meta:
        abstract = True


class KeyQuerySet(OwnedQuerySet):
    def usable(self) -> Self:
        """Keys that open something now: neither revoked nor expired, of an account that may sign in."""
        alive = models.Q(expires_at=None) | models.Q(expires_at__gt=timezone.now())
        return self.filter(alive, revoked_at=None, owner__is_active=True)


class ApiKey(LimitFields):
    """What a program shows to be let in for its owner. The secret itself is stored nowhere, only its SHA-256.

    `models` are the ids of the models it may use; empty: all. `prefix` is the part of the secret that may be shown.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=80)
    prefix = models.CharField(max_length=16, unique=True, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    scopes = models.JSONField(default=list)
    expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    models = models.JSONField(default=list, blank=True)  # the last field, since it hides the module of that name

    objects = KeyQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "name"],
                condition=models.Q(revoked_at=None),
                name="one_live_key_per_name",
                violation_error_message="You have a key with this name. Revoke that one first, or choose another name.",
            )
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("access:key", args=[self.pk])

    @property
    def shown(self) -> str:
        """The secret as far as it may be seen after its first showing."""
        return "a secret of your own" if self.prefix.startswith(OWN) else f"{SECRET_START}{self.prefix}-…"

    @property
    def state(self) -> str:
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at and self.expires_at <= timezone.now() else "active"


class Limit(LimitFields):
    """The limits of one person, in place of the settings' defaults; or of a group, for all its members together."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="limit"
    )
    group = models.OneToOneField(Group, null=True, blank=True, on_delete=models.CASCADE, related_name="limit")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(user=None, group__isnull=False) | models.Q(user__isnull=False, group=None),
                name="limit_of_a_user_or_a_group",
                violation_error_message="A limit belongs to one person or to one group. Choose exactly one of the two.",
            )
        ]

    def __str__(self) -> str:
        return str(self.user or self.group)


class Counter(models.Model):
    """What a subject has used in its latest minute and day, and what it holds now. `manage.py recount` rebuilds it.

    `subject` is "user:<id>", "key:<uuid>" or "group:<id>". `minute` and `day` are counted from 1970, in UTC.
    """

    subject = models.CharField(max_length=60, primary_key=True)
    minute = models.BigIntegerField(default=0)
    requests = models.BigIntegerField(default=0)
    day = models.BigIntegerField(default=0)
    tokens = models.BigIntegerField(default=0)
    running = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return self.subject


class LedgerQuerySet(models.QuerySet["LedgerEntry"]):
    def open(self) -> Self:
        return self.filter(state=LedgerEntry.State.OPEN)

    def owned_by(self, user: object) -> Self:
        return self.filter(user=getattr(user, "pk", None))

    def abandoned(self) -> Self:
        """Open ones whose process is gone, by the database's clock, or has held them for longer than is believable."""
        silent = Now() - timedelta(seconds=CARRIER_SECONDS)
        alive = Carrier.objects.filter(heartbeat_at__gte=silent).values("name")
        gone = ~models.Q(carrier__in=alive) & models.Q(created_at__lt=silent)
        forgotten = models.Q(created_at__lt=Now() - timedelta(hours=LONGEST_HOURS))
        return self.open().exclude(carrier="").filter(gone | forgotten)


class LedgerEntry(models.Model):
    """One piece of work: reserved before it began, settled to what it used, or refunded when it failed.

    `work` is what `gateway.inference().cancel` stops; "run:<uuid>" and "job:<uuid>" name a playground run and a job.
    `carrier` is the process that will settle it; empty where others may, as with jobs. `subjects` are the counters that
    were charged. `parts` says which parts of the work are counted, where that is not all of it. Tokens are prompt and
    answer together.
    """

    class State(models.TextChoices):
        OPEN = "open"
        SETTLED = "settled"
        REFUNDED = "refunded"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="ledger")
    key = models.ForeignKey(ApiKey, null=True, on_delete=models.SET_NULL, related_name="ledger")
    subjects = models.JSONField(default=list)
    work = models.CharField(max_length=120, db_index=True)
    kind = models.CharField(max_length=20)
    model = models.CharField(max_length=200)
    source = models.CharField(max_length=40)
    state = models.CharField(max_length=8, choices=State, default=State.OPEN)
    reserved_tokens = models.BigIntegerField(validators=[MinValueValidator(0)])
    prompt_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    parts = models.CharField(max_length=40, blank=True)
    carrier = models.CharField(max_length=80, blank=True)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    ended_at = models.DateTimeField(null=True)

    objects = LedgerQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at",)
        verbose_name_plural = "ledger entries"
        indexes = [
            models.Index(fields=["user", "created_at"], name="ledger_of_user"),
            models.Index(fields=["key", "created_at"], name="ledger_of_key"),
            models.Index(fields=["created_at"], condition=models.Q(state="open"), name="ledger_open"),
        ]

    def __str__(self) -> str:
        return f"{self.work} ({self.state})"

    @property
    def used_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class CarrierQuerySet(models.QuerySet["Carrier"]):
    def silent_for_long(self) -> Self:
        return self.filter(heartbeat_at__lt=Now() - timedelta(hours=LONGEST_HOURS))


class Carrier(models.Model):
    """A process that holds reservations, and when it was last heard of."""

    name = models.CharField(max_length=80, primary_key=True)
    heartbeat_at = models.DateTimeField()

    objects = CarrierQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name
