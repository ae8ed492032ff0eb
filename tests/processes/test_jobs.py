from __future__ import annotations

import json
import subprocess
import sys

import pytest
import redis

from steering.jobs.queue import QUEUE
from tests.processes.several import ROOT, Several, Web
from tests.waiting import until

PATIENCE = 60  # seconds; 20 on a machine that is not busy


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


def test_a_job_whose_message_is_lost_is_sent_again_and_one_that_waits_is_not(several: Several, web: Web) -> None:
    connection = redis.Redis.from_url(several.redis.url)

    def messages() -> dict[str, bytes]:
        entries: list[bytes] = connection.lrange(QUEUE, 0, -1)  # type: ignore[assignment]
        found = {json.loads(entry)["headers"]["id"]: entry for entry in entries}
        assert len(found) == len(entries), "a job has two messages"
        return found

    waits, loses = several.job(), several.job()
    assert messages().keys() == {waits, loses}
    connection.lrem(QUEUE, 1, messages()[loses])
    assert messages().keys() == {waits}
    until(lambda: messages().keys() == {waits, loses}, PATIENCE)
    worker = several.worker()
    assert [web.ended(job)["state"] for job in (waits, loses)] == ["succeeded", "succeeded"]
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
