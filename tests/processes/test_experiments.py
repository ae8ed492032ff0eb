"""An experiment whose process is killed while it runs, and which another takes up."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.several import Message, Several, Web
from tests.waiting import until


@pytest.fixture
def alone() -> Iterator[Several]:
    """An installation of its own: no other process is to take the experiment up."""
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    folder = tempfile.TemporaryDirectory(prefix="steerboard-alone-")
    with folder as name, Several(Path(name), postgres=False) as running:
        yield running


def test_an_experiment_of_a_thousand_points_outlives_the_process_that_carried_it(alone: Several) -> None:
    """The first web process is slow enough to be killed in the middle; a second one finishes the rest."""
    several, first = alone, alone.web(0.2)
    experiment = several.run("-m", "tests.processes.experiment").split()[-1]
    halfway = until(lambda: _past(first, experiment, 150), 120)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    assert halfway["state"] == "running"
    second = several.web(0.0)
    ended: Message = until(lambda: _if_ended(second, experiment), 150)
    assert (ended["state"], ended["done"]) == ("succeeded", 1000)
    assert several.run("-m", "tests.processes.points", experiment).split() == ["1000", "1000", "1000"]
    second.process.kill()


def _status(web: Web, experiment: str) -> Message:
    return web.get(f"/experiments/{experiment}/status/")[1]


def _past(web: Web, experiment: str, points: int) -> Message | None:
    status = _status(web, experiment)
    return status if status.get("done", 0) >= points else None


def _if_ended(web: Web, experiment: str) -> Message | None:
    status = _status(web, experiment)
    return None if status.get("state") in (None, "queued", "running") else status
