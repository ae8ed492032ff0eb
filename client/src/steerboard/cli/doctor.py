"""doctor: each thing that the client stands on, with a cure for what is wrong."""

from __future__ import annotations

import click

from steerboard import doctor as checks
from steerboard.cli.common import command
from steerboard.cli.exits import DONE, ERROR
from steerboard.cli.output import Output, said
from steerboard.client import Steerboard

MARKS = {
    "ok": "[green]ok[/]",
    "warning": "[yellow]warning[/]",
    "failed": "[red]failed[/]",
    "skipped": "[dim]skipped[/]",
}


@click.command()
@command
def doctor(client: Steerboard, out: Output) -> int:
    """Look at the address, TLS, credentials, key, scopes, model, versions and clock. Ends with 1 if one fails."""
    found = checks.examine(client._core)
    bad = [finding for finding in found if finding.status == "failed"]
    lines: list[str] = []
    for finding in found:
        lines.append(f"{MARKS[finding.status]}  {finding.check}: {said(finding.detail)}")
        if finding.cure:
            lines.append(f"      {said(finding.cure)}")
    out.result({"ok": not bad, "findings": [finding.wire() for finding in found]}, *lines)
    return ERROR if bad else DONE
