"""One process of a burst: many threads ask at once, for each account in turn, and count what is granted.

    python -m tests.processes.burst THREADS TIMES SECONDS EMAIL[,EMAIL]...

SECONDS is the time that all pretend it is, so that no minute begins midway. Of two addresses with a comma half of the
threads ask for one, half for the other. "brief@…" ends what it was granted at once, in one of both ways; the others
keep it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from datetime import UTC, datetime

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
django.setup()

from django.db import connection

from steering.access import admission
from steering.access.denied import Denied
from steering.access.principal import Principal
from steering.accounts.models import User

TOKENS = 10


def ask(who: Principal, number: int) -> str:
    try:
        held = admission.reserve(who, work="burst", kind="generate", model="m", tokens=TOKENS, source="openai")
    except Denied as denied:
        return denied.code
    if who.user.email.startswith("brief"):
        if number % 2:
            admission.settle(held.id, prompt_tokens=1, completion_tokens=2)
        else:
            admission.refund(held.id)
    return "granted"


def burst(threads: int, times: int, emails: list[str]) -> dict[str, dict[str, int]]:
    rounds = [[Principal(User.objects.get(email=email)) for email in both.split(",")] for both in emails]
    said: list[tuple[str, str]] = []
    together = threading.Barrier(threads)

    def one(thread: int) -> None:
        for people in rounds:
            who = people[thread % len(people)]
            together.wait()
            for number in range(times):
                try:
                    said.append((who.user.email, ask(who, thread + number)))
                except Exception as error:
                    said.append((who.user.email, f"{type(error).__name__}: {error}"))
        connection.close()

    crowd = [threading.Thread(target=one, args=(n,)) for n in range(threads)]
    for member in crowd:
        member.start()
    for member in crowd:
        member.join()
    counts: dict[str, dict[str, int]] = {who.user.email: {} for people in rounds for who in people}
    for email, answer in said:
        counts[email][answer] = counts[email].get(answer, 0) + 1
    return counts


if __name__ == "__main__":
    now = datetime.fromtimestamp(int(sys.argv[3]), UTC)
    admission.timezone = type("Clock", (), {"now": staticmethod(lambda: now)})  # type: ignore[assignment]
    print(json.dumps(burst(int(sys.argv[1]), int(sys.argv[2]), sys.argv[4:])))
