"""Bring the starter content of every app that has some into the database. Running it again changes nothing."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        loaders = [getattr(config, "load_starters", None) for config in apps.get_app_configs()]
        loaded = [load() for load in loaders if load]
        self.stdout.write(f"Starter content is there: {', '.join(loaded)}.")
