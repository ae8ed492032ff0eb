"""Accounts with one limit of N each, for a burst; and afterwards, what the database says of each.

python -m tests.processes.burst_setup make N
python -m tests.processes.burst_setup look
"""

from __future__ import annotations

import json
import os
import sys

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
django.setup()

from django.contrib.auth.models import Group
from django.db import connection

from steering.access.models import Counter, LedgerEntry, Limit
from steering.access.recount import recount
from steering.accounts.models import User
from tests.processes.burst import TOKENS


def make(n: int) -> None:
    limits = {
        "minute": {"requests_per_minute": n},
        "tokens": {"tokens_per_day": n * TOKENS + TOKENS - 1},
        "places": {"concurrent_runs": n},
        "brief": {"concurrent_runs": 3},
    }
    for name, limit in limits.items():
        Limit.objects.create(user=User.objects.create_user(f"{name}@burst.org"), **limit)
    group = Group.objects.create(name="Burst")
    Limit.objects.create(group=group, tokens_per_day=n * TOKENS)
    group.user_set.add(User.objects.create_user("one@burst.org"), User.objects.create_user("other@burst.org"))


def look() -> dict[str, object]:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode" if connection.vendor == "sqlite" else "SELECT version()")
        mode = cursor.fetchone()[0]
    people = User.objects.filter(email__endswith="@burst.org").values_list("pk", "email")
    return {
        "mode": mode,
        "counters": {email: counted(f"user:{pk}") for pk, email in people},
        "rows": {email: LedgerEntry.objects.filter(user=pk).count() for pk, email in people},
        "group": counted(f"group:{Group.objects.get().pk}"),
        "differences": [str(difference) for difference in recount(repair=False)],
    }


def counted(subject: str) -> list[int]:
    row = Counter.objects.get(pk=subject)
    return [row.requests, row.tokens, row.running]


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(int(sys.argv[2]))
    else:
        print(json.dumps(look()))
