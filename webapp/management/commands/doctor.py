from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections import Counter
from dataclasses import asdict
from typing import Any

from django.core.management import BaseCommand
from django.db import DatabaseError

from webapp.doctor import exposure, model, places
from webapp.doctor.finding import Check, Finding, fail

CHECKS: tuple[Check, ...] = (
    exposure.settings_fit,
    exposure.debug,
    exposure.secret_key,
    exposure.hosts,
    exposure.https,
    exposure.mail,
    exposure.doors,
    places.data_folder,
    places.free_space,
    places.database,
    exposure.administrators,
    places.redis,
    model.default_model,
    model.served,
    places.vendored_files,
    places.packages,
    places.clock,
)
STYLES = {"ok": "SUCCESS", "warn": "WARNING", "fail": "ERROR"}


class Command(BaseCommand):
    help = (
        "Look at everything this installation stands on; each line is ok, warn or fail, with a cure. 1 where one fails."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON document, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = [finding for check in CHECKS for finding in carried_out(check)]
        counted: Counter[str] = Counter(finding.state for finding in findings)
        if options["json"]:
            self.stdout.write(
                json.dumps({"counts": counted, "findings": [asdict(each) for each in findings]}, indent=1)
            )
        else:
            self.tell(findings, counted)
        if counted["fail"]:
            sys.exit(1)

    def tell(self, findings: list[Finding], counted: Counter[str]) -> None:
        for each in findings:
            state = getattr(self.style, STYLES[each.state])(f"{each.state:5}")
            self.stdout.write(f"{state} {each.about}: {each.text}")
            if each.cure:
                self.stdout.write(f"      {each.cure}")
        self.stdout.write(f"{counted['ok']} ok, {counted['warn']} to look at, {counted['fail']} wrong")


def carried_out(check: Check) -> list[Finding]:
    """A check that breaks is a finding too, so that one trouble does not hide the others."""
    name = check.__name__.replace("_", " ")
    try:
        return list(check())
    except DatabaseError:
        return [fail(name, "The database could not be asked.", "See the lines on the database and its migrations.")]
    except Exception as error:
        return [fail(name, f"This could not be looked at: {type(error).__name__}: {error}", "Report it as a bug.")]
