from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

from tests.processes.several import ROOT, Message, Several, Web, until


@pytest.fixture
def web(webs: tuple[Web, Web]) -> Web:
    return webs[0]


def status(web: Web, job: str) -> Message:
    return web.get(f"/jobs/{job}/status/")[1]


def ended(web: Web, job: str, seconds: float = 60) -> Message:
    return until(lambda: (s := status(web, job)).get("state") not in (None, "queued", "running") and s, seconds)


def running(web: Web, job: str) -> Any:
    return until(lambda: status(web, job).get("state") == "running", 60)


def test_a_web_worker_carries_a_job_and_keeps_what_it_found(several: Several, web: Web) -> None:
    worker = several.worker()
    done = ended(web, several.job())
    assert (done["state"], done["result_url"]) == ("succeeded", "/kept/[3]/")
    worker.terminate()
    assert worker.wait(30) == 0


def test_a_job_waits_for_a_web_worker(several: Several, web: Web) -> None:
    job = several.job()
    assert status(web, job)["state"] == "queued"
    worker = several.worker()
    assert ended(web, job)["state"] == "succeeded"
    worker.kill()


def test_any_process_cancels_a_job(several: Several, web: Web) -> None:
    worker = several.worker(delay=20)
    job = several.job()
    running(web, job)
    assert web.post(f"/jobs/{job}/cancel/")[1]["state"] == "cancelled"
    worker.kill()


def test_a_job_whose_worker_is_killed_fails_with_a_cure(several: Several, web: Web) -> None:
    worker = several.worker(delay=20)
    job = several.job()
    running(web, job)
    worker.kill()
    killed = time.monotonic()
    lost = ended(web, job)
    assert time.monotonic() - killed < 40  # 20 on a machine that is not busy
    assert (lost["state"], lost["error_code"]) == ("failed", "worker_lost")
    assert "Start it again" in lost["error_message"]


def test_a_worker_without_threads_is_refused(several: Several) -> None:
    command = [sys.executable, "-m", "celery", "-A", "webapp", "worker", "-Q", "steerboard.jobs", "-P", "solo"]
    done = subprocess.run(command, cwd=ROOT, env=several.env, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "-P threads" in done.stderr
