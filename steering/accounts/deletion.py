"""Taking an account away, with all that its owner made here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db import models, transaction
from django.dispatch import Signal
from django.utils import timezone

from steering.accounts import sessions
from steering.accounts.models import User

account_leaves = Signal()  # user=...: apps stop what still runs for the account; its rows are still there
RECENT = timedelta(minutes=15)


class LastAdministrator(Exception):
    """Nobody else could administer the installation."""


@dataclass(frozen=True)
class Owned:
    """A line of what goes: `count` things called `name`."""

    name: str
    count: int


def owned_by(user: User) -> list[Owned]:
    """What goes with the account: rows of every model that has an owner, whatever app they are in."""
    found = []
    for relation in User._meta.related_objects:
        if relation.field.name == "owner" and relation.on_delete is models.CASCADE:
            model = relation.related_model
            count = model._base_manager.filter(owner=user).count()
            name = model._meta.verbose_name if count == 1 else model._meta.verbose_name_plural
            if count:
                found.append(Owned(str(name), count))
    return sorted(found, key=lambda owned: owned.name)


def signed_in_recently(user: User) -> bool:
    return user.last_login is not None and timezone.now() - user.last_login < RECENT


def is_last_administrator(user: User) -> bool:
    others = User.objects.filter(is_superuser=True, is_active=True).exclude(pk=user.pk)
    return user.is_superuser and not others.exists()


def delete_account(user: User) -> None:
    """Delete `user`. Raises LastAdministrator, also when two last ones leave at the same moment."""
    if is_last_administrator(user):
        raise LastAdministrator
    account_leaves.send(sender=User, user=user)  # before the transaction: what ends writes from other threads
    with transaction.atomic():
        # The lock makes leaving administrators queue; whoever comes second sees that the first is gone.
        admins = User.objects.select_for_update().filter(is_superuser=True, is_active=True).order_by("pk")
        left = [pk for pk in admins.values_list("pk", flat=True) if pk != user.pk]
        if user.is_superuser and not left:
            raise LastAdministrator
        sessions.end_all(user.pk)
        User.objects.get(pk=user.pk).delete()
