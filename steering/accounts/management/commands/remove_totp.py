from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from allauth.mfa.models import Authenticator
from django.core.management import BaseCommand

from steering.accounts.management.commands.signin_link import account


class Command(BaseCommand):
    help = "Take the second step of signing in away from an account whose owner lost phone and recovery codes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email", help="whose account")

    def handle(self, *args: Any, email: str, **options: Any) -> None:
        removed, _ = Authenticator.objects.filter(user=account(email)).delete()
        said = "signs in without a second step now" if removed else "had no second step"
        self.stdout.write(f"{email} {said}.")
