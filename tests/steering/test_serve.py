from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60  # generous: a loaded machine of two cores


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def start(tmp_path: Path) -> Iterator:
    """start(port, data=...) begins a server without a model; all are stopped at the end."""
    running: list[subprocess.Popen[str]] = []

    def begin(port: int, data: Path = tmp_path / "data") -> subprocess.Popen[str]:
        env = os.environ | {"STEERBOARD_DATA": str(data), "INFERENCE_URL": "none://", "PYTHONUNBUFFERED": "1"}
        env["DJANGO_SETTINGS_MODULE"] = "webapp.settings"
        command = [sys.executable, "manage.py", "serve", "--port", str(port)]
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait()


def read_until(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    said = ""
    assert process.stdout
    for line in process.stdout:
        said += line
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"the server ended without {pattern!r}: {said}")


def test_it_prepares_serves_and_prints_a_link_that_signs_in(start, port: int, tmp_path: Path) -> None:
    process = start(port)
    link = read_until(process, r"http://\S+/accounts/link/\S+")[0]
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with pytest.raises(urllib.error.HTTPError, match="410"):
        opener.open(link.removesuffix("/") + "x/")
    assert opener.open(link).status == 200
    assert opener.open(f"http://127.0.0.1:{port}/accounts/profile/").url.endswith("/accounts/profile/")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "data" / "secret_key").stat().st_mode) == 0o600
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_a_second_server_on_one_data_folder_is_refused_and_pointed_to_the_first(start, port: int) -> None:
    read_until(start(port), "Steerboard is at")
    second = start(free_port())
    said, _ = second.communicate(timeout=START_SECONDS)
    assert second.returncode == 1
    assert f"already running on this data folder, at http://127.0.0.1:{port}" in said
    assert "Traceback" not in said


def test_a_taken_port_is_one_sentence_with_a_cure(start, port: int, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        process = start(port)
        said, _ = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 1
    assert re.fullmatch(rf"Port {port} is taken by another program\. Use a free one: make run PORT=\d+\n", said)


def test_a_data_folder_that_cannot_be_made_is_one_sentence(start, port: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    process = start(port, tmp_path / "file" / "data")
    said, _ = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 1
    assert "STEERBOARD_DATA=" in said
    assert "Traceback" not in said


def test_the_page_is_up_within_seconds_on_a_second_start(start, port: int) -> None:
    first = start(port)
    read_until(first, "Steerboard is at")
    first.send_signal(signal.SIGTERM)
    first.wait(20)
    began = time.monotonic()
    second = start(port)
    read_until(second, "Steerboard is at")
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/accounts/signin/").status == 200
    assert time.monotonic() - began < 15
