"""`manage.py workshop`: Steerboard with its workshop open, for a talk.

HOST and PORT say where (127.0.0.1 and 5050), STRENGTH with how many doses every persona begins (1). Whoever reaches the
address may write there without an account: they share the limits of one account, the first or that of --user.
"""

from __future__ import annotations

import ipaddress
import os
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError, call_command

from steering.accounts.models import User
from steering.compat.workshop.asking import MOST_STRENGTH


class Command(BaseCommand):
    help = "Serve Steerboard with the workshop's page open to guests, at /workshop/."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", default="", help="e-mail of the account whose limits guests use; the first one")

    def handle(self, *args: Any, user: str, **options: Any) -> None:
        call_command("prepare", stdout=self.stdout)
        host = User.objects.filter(email__iexact=user).first() if user else User.objects.first_account()
        if host is None:
            raise CommandError(f"There is no account {user}. Name one that exists, or leave --user out.")
        address, port = os.environ.get("HOST", "127.0.0.1"), _port(os.environ.get("PORT", "5050"))
        settings.WORKSHOP_HOST = host.email
        settings.WORKSHOP_STRENGTH = _strength(os.environ.get("STRENGTH", "1"))
        _check(address)
        self.stdout.write(f"The workshop will be at http://{address}:{port}/workshop/")
        call_command("serve", host=address, port=port, stdout=self.stdout)


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    raise CommandError(f"PORT is {text:.40}, and a port is a number from 1 to 65535.")


def _strength(text: str) -> float:
    try:
        strength = float(text)
    except ValueError:
        strength = float("nan")
    if not -MOST_STRENGTH <= strength <= MOST_STRENGTH:
        raise CommandError(f"STRENGTH is {text:.40}, and counts in doses from {-MOST_STRENGTH:g} to {MOST_STRENGTH:g}.")
    return strength


def _check(address: str) -> None:
    """A server that others reach must know the name under which they ask for it."""
    try:
        local = ipaddress.ip_address(address).is_loopback
    except ValueError:
        local = address == "localhost"
    if not local and not (settings.PUBLIC_URL or os.environ.get("ALLOWED_HOSTS")):
        raise CommandError(
            f"HOST={address} lets other machines in, and they must be named: set ALLOWED_HOSTS to the name or address "
            "that they type, for example ALLOWED_HOSTS=192.168.1.20. Without HOST only this machine gets in."
        )
