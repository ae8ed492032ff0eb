from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management import BaseCommand

from steering.access.counters import Standing
from steering.access.recount import recount


class Command(BaseCommand):
    help = "Compare the counters of quotas with the ledger, and set right what differs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 where something differs")

    def handle(self, *args: Any, check: bool, **options: Any) -> None:
        found = recount(repair=not check)
        for difference in found:
            self.stdout.write(
                f"{difference.subject}: {_said(difference.counted)}; the ledger has {_said(difference.true)}"
            )
        if not found:
            self.stdout.write("Every counter agrees with the ledger.")
        elif check:
            self.stdout.write(f"{len(found)} differ. Run this without --check to set them right.")
            sys.exit(1)
        else:
            self.stdout.write(f"{len(found)} were set right.")


def _said(standing: Standing) -> str:
    return f"{standing.requests} requests this minute, {standing.tokens} tokens today, {standing.running} running"
