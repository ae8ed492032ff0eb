from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.urls import reverse

from steering.accounts.models import SigninLink, User


class Command(BaseCommand):
    help = "Print a link that signs an account in once, within 15 minutes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--email", help="whose account; the first administrator's where this is left out")
        parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the server is")

    def handle(self, *args: Any, email: str | None, url: str, **options: Any) -> None:
        token = SigninLink.objects.issue(account(email))
        self.stdout.write(f"{url.rstrip('/')}{reverse('accounts:link', args=[token])}")


def account(email: str | None) -> User:
    if not email:
        return User.objects.first_account()
    user = User.objects.filter(email=User.objects.normalize_email(email), is_active=True).first()
    if user is None:
        known = ", ".join(User.objects.filter(is_active=True).values_list("email", flat=True)[:10]) or "none yet"
        raise CommandError(f"There is no account {email}. Accounts: {known}.")
    return user
