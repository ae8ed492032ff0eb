from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes.several import ROOT, Several, Web


@pytest.fixture
def web(webs: tuple[Web, Web]) -> Web:
    return webs[0]


def test_a_web_worker_carries_a_job_and_keeps_what_it_found(several: Several, web: Web) -> None:
    worker = several.worker()
    done = web.ended(several.job())
    assert (done["state"], done["result_url"]) == ("succeeded", "/kept/[3]/")
    worker.terminate()
    assert worker.wait(30) == 0


def test_a_job_waits_for_a_web_worker(several: Several, web: Web) -> None:
    job = several.job()
    assert web.job(job)["state"] == "queued"
    worker = several.worker()
    assert web.ended(job)["state"] == "succeeded"
    worker.kill()


def test_any_process_cancels_a_job(several: Several, web: Web) -> None:
    worker = several.worker(delay=20)
    job = several.job()
    web.running(job)
    assert web.post(f"/jobs/{job}/cancel/")[1]["state"] == "cancelled"
    worker.kill()


def test_a_worker_without_threads_is_refused(several: Several) -> None:
    command = [sys.executable, "-m", "celery", "-A", "webapp", "worker", "-Q", "steerboard.jobs", "-P", "solo"]
    done = subprocess.run(command, cwd=ROOT, env=several.env, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "-P threads" in done.stderr
