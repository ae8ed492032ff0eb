"""Who may see what: one's own things, and the starters, which belong to nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from django.db import models
from django.db.models import Q

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser

    from steering.accounts.models import User


class OwnedQuerySet(models.QuerySet):
    """For models with `owner`, a nullable foreign key to User. Look others' things up through this: they get a 404."""

    def visible_to(self, user: User | AnonymousUser) -> Self:
        """What `user` owns, and the starters."""
        return self.filter(Q(owner=user.pk) | Q(owner=None)) if user.is_authenticated else self.none()

    def owned_by(self, user: User | AnonymousUser) -> Self:
        """What `user` may change."""
        return self.filter(owner=user.pk) if user.is_authenticated else self.none()
