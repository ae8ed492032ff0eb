"""Everything the first start needs, and nothing that is done already."""

from __future__ import annotations

from io import StringIO
from typing import Any

from django.core.management import BaseCommand, call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from steering import gateway
from steering.accounts.models import User


class Command(BaseCommand):
    help = "Prepare the data folder: database, first account, starter content. Safe to repeat."
    requires_migrations_checks = False

    def run_from_argv(self, argv: list[str]) -> None:
        try:
            super().run_from_argv(argv)
        finally:
            gateway.close(timeout=60)  # starter vectors are kept through it

    def handle(self, *args: Any, **options: Any) -> None:
        if migrations_pending():
            self.stdout.write("Preparing the database and the starter content")
            call_command("migrate", interactive=False, verbosity=0)
        User.objects.first_account()
        call_command("load_starters", stdout=StringIO())


def migrations_pending() -> bool:
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))
