"""Pages, jobs and the sweeper through a Redis that speaks TLS alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_inference import TEXT
from tests.processes.several import Message, Several
from tests.steering.play import a_run, text_of
from tests.tls import TlsRedis, needs_tls


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Several]:
    with Several(tmp_path, redis=TlsRedis, postgres=False) as running:
        yield running


@needs_tls
def test_web_processes_and_web_workers_meet_through_tls(several: Several) -> None:
    here, there, worker = several.web(), several.web(), several.worker()
    assert here.get("/readyz")[1]["checks"]["redis"] == "ok"
    with here.line() as line, there.line() as other:
        seen: list[Message] = []
        other.follow(line.run(a_run().to_wire()), seen)
    assert text_of(seen, "A").split() == TEXT.split()
    assert here.ended(several.job())["state"] == "succeeded"
    worker.terminate()
    assert worker.wait(30) == 0
