"""kill -9 of a web process and of a web worker, both at once, since waiting for a lease to end takes its time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from tests.processes.several import Message, Several, Web
from tests.steering.play import a_run, text_of

PATIENCE = 60  # seconds; 20 on a machine that is not busy


@dataclass
class Wreck:
    run: str
    job: str
    seen: list[Message] = field(default_factory=list)
    killed: float = 0.0


@pytest.fixture(scope="module")
def wreck(several: Several, webs: tuple[Web, Web]) -> Wreck:
    web, worker = several.web(0.15), several.worker(delay=20)
    job = several.job()
    webs[0].running(job)
    with web.line() as line, webs[0].line() as other:
        wreck = Wreck(line.run(a_run().to_wire()), job)
        other.follow(wreck.run, wreck.seen, 25)  # well past the first checkpoint
        web.process.kill()
        worker.kill()
    wreck.killed = time.monotonic()
    return wreck


def test_a_run_whose_process_is_killed_ends_with_what_it_had_written(wreck: Wreck, webs: tuple[Web, Web]) -> None:
    with webs[0].line() as line:
        line.follow(wreck.run, wreck.seen)
    assert time.monotonic() - wreck.killed < PATIENCE
    assert wreck.seen[-1]["state"] == "interrupted"
    assert {event["error"]["code"] for event in wreck.seen if event["t"] == "failed"} == {"interrupted"}
    assert len(text_of(wreck.seen, "A").split()) >= 3


def test_a_job_whose_worker_is_killed_fails_with_a_cure(wreck: Wreck, webs: tuple[Web, Web]) -> None:
    lost = webs[0].ended(wreck.job)
    assert time.monotonic() - wreck.killed < PATIENCE
    assert (lost["state"], lost["error_code"]) == ("failed", "worker_lost")
    assert "Start it again" in lost["error_message"]


def test_what_both_had_reserved_is_given_back(wreck: Wreck, several: Several, webs: tuple[Web, Web]) -> None:
    webs[0].ended(wreck.job)
    look = (
        "from steering.access.models import LedgerEntry as E\n"
        f"print([(e.state, e.used_tokens > 0) for w in ('run:{wreck.run}', 'job:{wreck.job}')"
        " for e in E.objects.filter(work=w)])"
    )
    found = several.run("manage.py", "shell", "--no-imports", "-c", look).strip()
    assert found == "[('settled', True), ('refunded', False)]"
    assert "agrees" in several.run("manage.py", "recount", "--check")
