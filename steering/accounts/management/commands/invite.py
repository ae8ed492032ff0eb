from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.urls import reverse

from steering.accounts import signup
from steering.accounts.models import Invitation, User


class Command(BaseCommand):
    help = "Print a link with which one person can make an account, once, within seven days."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email", help="whom; the account will have this address")
        parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the server is")

    def handle(self, *args: Any, email: str, url: str, **options: Any) -> None:
        if not signup.accepts_invitations():
            raise CommandError("Sign-up is closed. Start the server with SIGNUP=invitation, and set it here too.")
        if User.objects.filter(email=User.objects.normalize_email(email)).exists():
            raise CommandError(f"There is an account {email} already. `manage.py signin_link --email` opens it.")
        _, token = Invitation.objects.issue(email, invited_by=None)
        self.stdout.write(f"{url.rstrip('/')}{reverse('accounts:invitation', args=[token])}")
