"""A burst of 500 requests, from four processes of many threads, on a quota of N: exactly N get in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.servers import Postgres
from tests.processes.several import ROOT, has_postgres

N = 37
PROCESSES, THREADS, TIMES = 4, 25, 5
ASKED = PROCESSES * THREADS * TIMES
ROUNDS = [
    "minute@burst.org",
    "tokens@burst.org",
    "places@burst.org",
    "brief@burst.org",
    "one@burst.org,other@burst.org",
]
PEOPLE = [email for both in ROUNDS for email in both.split(",")]

Env = dict[str, str]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def env(request: pytest.FixtureRequest) -> Iterator[Env]:
    """Of a real database, SQLite's file or PostgreSQL's server, with nothing in it but the tables."""
    if request.param == "postgres" and not has_postgres():
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory(prefix="steerboard-quotas-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        found = os.environ | {
            "DJANGO_SETTINGS_MODULE": "webapp.settings", "STEERBOARD_DATA": str(folder / "data"), "DATABASE_URL": "",
            "INFERENCE_URL": "none://", "REDIS_URL": "", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        server = None
        try:
            if request.param == "postgres":
                postgres = Postgres(folder / "postgres")
                server = postgres.start()
                found["DATABASE_URL"] = postgres.url
            run(found, "manage.py", "migrate", "--verbosity", "0")
            yield found
        finally:
            if server:
                server.terminate()
                server.wait()


def run(env: Env, *command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_of_a_burst_exactly_the_quota_gets_in(env: Env) -> None:
    run(env, "-m", "tests.processes.burst_setup", "make", str(N))
    seconds = str(int(time.time()))
    command = [sys.executable, "-m", "tests.processes.burst", str(THREADS), str(TIMES), seconds, *ROUNDS]
    crowd = [
        subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    said: dict[str, Counter[str]] = {email: Counter() for email in PEOPLE}
    for process in crowd:
        out, err = process.communicate()
        assert process.returncode == 0, err
        for email, counts in json.loads(out).items():
            said[email] += Counter(counts)

    assert said["minute@burst.org"] == {"granted": N, "rate_limited": ASKED - N}
    assert said["tokens@burst.org"] == {"granted": N, "quota_spent": ASKED - N}
    assert said["places@burst.org"] == {"granted": N, "too_many_at_once": ASKED - N}
    assert said["one@burst.org"]["granted"] + said["other@burst.org"]["granted"] == N
    brief = said["brief@burst.org"]
    assert brief["granted"] + brief["too_many_at_once"] == ASKED and brief["granted"] >= 3

    seen: Any = json.loads(run(env, "-m", "tests.processes.burst_setup", "look"))
    assert seen["mode"].startswith(("wal", "PostgreSQL"))
    for email in PEOPLE:
        assert seen["rows"][email] == said[email]["granted"] == seen["counters"][email][0]
    assert seen["counters"]["tokens@burst.org"] == [N, N * 10, N]
    assert seen["counters"]["brief@burst.org"][2] == 0
    assert seen["group"] == [N, N * 10, N]
    assert seen["differences"] == []
