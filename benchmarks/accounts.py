"""`python -m benchmarks.accounts 32` prepares the data folder, makes accounts in it, prints a sign-in token each."""

from __future__ import annotations

import os
import sys
from io import StringIO


def main(count: int) -> None:
    import django
    from django.core.management import call_command

    os.environ["DJANGO_SETTINGS_MODULE"] = "webapp.settings"
    django.setup()
    call_command("prepare", stdout=StringIO())
    from steering.accounts.models import SigninLink, User

    for number in range(count):
        print(SigninLink.objects.issue(User.objects.create_user(f"user{number}@localhost")))


if __name__ == "__main__":
    main(int(sys.argv[1]))
