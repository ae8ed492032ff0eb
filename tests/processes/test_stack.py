from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.servers import HOST, free_port
from scripts.stack import identity
from tests.processes.several import ROOT, has_postgres
from tests.waiting import until

pytestmark = [
    pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed"),
    pytest.mark.skipif(not has_postgres(), reason="PostgreSQL is not installed"),
]


@pytest.fixture
def data() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="steerboard-stack-") as folder:
        yield Path(folder)


def stack(data: Path, *command: str) -> subprocess.Popen[str]:
    ours = {"STEERBOARD_DATA": str(data), "STEERBOARD_MODEL": "", "DJANGO_SETTINGS_MODULE": "webapp.settings"}
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.stack", *command],
        cwd=ROOT, env=os.environ | ours, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_it_starts_two_web_processes_and_stops_exactly_what_it_started(data: Path) -> None:
    port = free_port(neighbours=2)
    running = stack(data, "run", "--port", str(port))
    try:
        note = data / "stack" / "running.json"
        until(lambda: running.poll() is not None or answers(port + 1), 90)
        assert running.poll() is None, running.stdout.read() if running.stdout else ""
        started = json.loads(note.read_text())
        assert len(started) == 7  # the supervisor, Redis, PostgreSQL, two workers, two web processes
        assert stack(data, "run").wait(30) == 1  # refused: it runs already
        stopped = stack(data, "stop")
        assert stopped.wait(60) == 0
        assert running.wait(10) == 0
        assert not any(identity(known["pid"]) == known for known in started.values())
        assert not note.exists()
    finally:
        running.terminate()
        running.wait(60)


def answers(port: int) -> bool:
    try:
        return bool(urllib.request.urlopen(f"http://{HOST}:{port}/livez", timeout=2).status == 200)
    except OSError:
        time.sleep(0.1)
        return False
