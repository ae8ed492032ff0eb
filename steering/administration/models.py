"""The ledger's open entries under a name of their own, so that the admin pages have a place to stop them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from django.db import models

from steering.access.models import LedgerEntry, LedgerQuerySet


class RunningManager(models.Manager["RunningWork"]):
    def get_queryset(self) -> LedgerQuerySet:
        return LedgerQuerySet(self.model, using=self._db).open()


class RunningWork(LedgerEntry):
    objects: ClassVar[RunningManager] = RunningManager()  # type: ignore[assignment]

    class Meta:
        proxy = True
        verbose_name = "running work"
        verbose_name_plural = "running work"
        ordering = ("-created_at",)

    if TYPE_CHECKING:
        DoesNotExist: ClassVar[type[Exception]]
