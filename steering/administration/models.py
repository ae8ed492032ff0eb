"""The ledger's open entries under a name of their own, so that the admin pages have a place to stop them."""

from __future__ import annotations

from steering.access.models import LedgerEntry


class RunningWork(LedgerEntry):
    class Meta:
        proxy = True
        verbose_name = "running work"
        verbose_name_plural = "running work"
        ordering = ("-created_at",)
