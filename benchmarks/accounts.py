"""`python -m benchmarks.accounts 32` prepares the data folder and makes accounts in it.

It prints a sign-in token and an API key of each.
"""

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
    from steering import gateway
    from steering.access.keys import create_key
    from steering.accounts.models import SigninLink, User

    for number in range(count):
        user = User.objects.create_user(f"user{number}@localhost")
        print(SigninLink.objects.issue(user), create_key(owner=user, name="benchmark", scopes=["generate"])[1])
    gateway.close(timeout=60)


if __name__ == "__main__":
    main(int(sys.argv[1]))
