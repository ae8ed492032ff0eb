"""Bring the starter content of every app that has some into the database. Running it again changes nothing."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand

from steering import gateway


class Command(BaseCommand):
    help = __doc__

    def run_from_argv(self, argv: list[str]) -> None:
        try:
            super().run_from_argv(argv)
        finally:
            gateway.close(timeout=60)  # starter vectors are kept through it

    def handle(self, *args: Any, **options: Any) -> None:
        loaders = [getattr(config, "load_starters", None) for config in apps.get_app_configs()]
        loaded = [load() for load in loaders if load]
        self.stdout.write(f"Starter content is there: {', '.join(loaded)}.")
