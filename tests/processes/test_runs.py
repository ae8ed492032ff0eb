from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fake_inference import TEXT
from tests.processes.several import Several, until
from tests.steering.play import a_run, text_of

pytestmark = pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is not installed")

WORDS = TEXT.split()
SLOW = 0.15  # seconds a word: a run of 20 takes three


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    with Several(tmp_path_factory.mktemp("several")) as running:
        yield running


@pytest.fixture(scope="module")
def webs(several: Several) -> Any:
    return several.web(SLOW), several.web(SLOW)


def settings() -> dict[str, Any]:
    return a_run().to_wire()


def test_another_process_shows_every_event_exactly_once_through_thirty_disconnects(webs: Any) -> None:
    here, there = webs
    chance = random.Random(7)
    with here.line() as line:
        run = line.run(settings())
        seen: list[dict[str, Any]] = []
        for _ in range(30):
            with there.line() as other:
                other.follow(run, seen, len(seen) + chance.randint(0, 2))
        with there.line() as other:
            other.follow(run, seen)
        original: list[dict[str, Any]] = []
        line.follow(run, original)
    assert seen == original
    assert text_of(seen, "A").split() == text_of(seen, "B").split() == WORDS


def test_a_stop_reaches_the_process_that_carries_the_run(webs: Any) -> None:
    here, there = webs
    with here.line() as line, there.line() as other:
        run = line.run(settings())
        seen: list[dict[str, Any]] = []
        other.follow(run, seen, 5)
        other.say(t="stop", run=run)
        other.follow(run, seen)
    assert seen[-1]["state"] == "cancelled"
    assert len(text_of(seen, "A").split()) < len(WORDS)


def test_one_press_that_reaches_two_processes_is_one_run(webs: Any) -> None:
    with webs[0].line() as one, webs[1].line() as other:
        press = {"t": "run", "idem": "5b8f8a53-2b0c-4f2e-9d59-5f3ac8a6f3a1", "settings": settings()}
        one.say(**press)
        other.say(**press)
        assert one.hear("accepted")["run"] == other.hear("accepted")["run"]


def test_redis_that_comes_back_empty_costs_no_token(several: Several, webs: Any) -> None:
    here, there = webs
    with here.line() as line, there.line() as other:
        run = line.run(settings())
        seen: list[dict[str, Any]] = []
        other.follow(run, seen, 8)
        several.restart_redis()
        other.follow(run, seen)
    assert seen[-1]["state"] == "finished"
    assert text_of(seen, "A").split() == text_of(seen, "B").split() == WORDS


def test_a_process_that_is_told_to_stop_finishes_its_runs_and_takes_no_new_ones(several: Several) -> None:
    leaving = several.web(SLOW)
    with leaving.line() as line:
        run = line.run(settings())
        leaving.process.terminate()
        until(lambda: leaving.get("/readyz")[0] == 503, 5)
        line.say(t="run", idem="6b8f8a53-2b0c-4f2e-9d59-5f3ac8a6f3a1", settings=settings())
        refused = line.hear("error")
        seen: list[dict[str, Any]] = []
        line.follow(run, seen)
    assert (refused["code"], refused["retry_after"]) == ("draining", 3)
    assert seen[-1]["state"] == "finished"
    assert leaving.process.wait(20) == 0


def test_a_run_whose_process_is_killed_ends_with_what_it_had_written(several: Several, webs: Any) -> None:
    doomed = several.web(SLOW)
    with webs[0].line() as other:
        with doomed.line() as line:
            run = line.run(settings())
            seen: list[dict[str, Any]] = []
            other.follow(run, seen, 10)
            doomed.process.kill()
        killed = time.monotonic()
        other.follow(run, seen)
    assert time.monotonic() - killed < 30  # 15 on a machine that is not busy
    assert seen[-1]["state"] == "interrupted"
    assert {event["error"]["code"] for event in seen if event["t"] == "failed"} == {"interrupted"}
    assert len(text_of(seen, "A").split()) >= 3
