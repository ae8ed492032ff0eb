"""What all commands share: their options, the client that they speak through, and reading what is secret."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from steerboard.cli.output import Output
from steerboard.client import Steerboard


def command(work: Callable[..., Any]) -> Callable[..., Any]:
    """Options --server and --json; `work` gets a client and an output in their place."""

    @click.option("--server", metavar="URL", help="The server's address; else $STEERBOARD_URL, or the last used.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON value and nothing else.")
    @functools.wraps(work)
    def wrapped(server: str | None, as_json: bool, **options: Any) -> Any:
        with Steerboard(server) as client:
            return work(client, Output(as_json), **options)

    return wrapped


def secret(name: str, env: str, given: str | None, from_stdin: bool, *, confirm: bool = False) -> str:
    """From the option, standard input, the environment, or asked for without an echo, in this order."""
    if given:
        return given
    found = sys.stdin.readline().rstrip("\r\n") if from_stdin else os.environ.get(env, "") or _asked(name, env, confirm)
    if not found:
        raise click.UsageError(f"The {name} is empty.")
    return found


def _asked(name: str, env: str, confirm: bool) -> str:
    if not sys.stdin.isatty():
        raise click.UsageError(f"There is nobody to ask for the {name}: set ${env}, or pass --{name}-stdin.")
    answer: str = click.prompt(name.capitalize(), hide_input=True, confirmation_prompt=confirm, err=True)
    return answer


def email_of(given: str | None) -> str:
    found = given or os.environ.get("STEERBOARD_EMAIL", "")
    if found:
        return found
    if not sys.stdin.isatty():
        raise click.UsageError("There is nobody to ask for the address: pass --email, or set $STEERBOARD_EMAIL.")
    answer: str = click.prompt("Email", err=True)
    return answer
