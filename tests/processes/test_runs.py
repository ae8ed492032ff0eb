from __future__ import annotations

import ctypes
import os
import random
import signal
import uuid
from typing import Any

import pytest

from steering.playground.runner import MAX_RUNS_AT_ONCE
from tests.fake_inference import TEXT
from tests.processes.several import Several, has_postgres
from tests.steering.play import a_run, text_of
from tests.waiting import until

WORDS = TEXT.split()
SLOW = 0.15  # seconds a word
LIBC = ctypes.CDLL(None)


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
        run = one.accepted()
        assert other.accepted() == run
        one.say(t="stop", run=run)
        other.follow(run, [])


def test_the_limit_of_runs_at_once_holds_across_processes(several: Several) -> None:
    webs = several.web(1.0), several.web(1.0)  # so slow that none ends before all have been asked for
    with webs[0].line() as one, webs[1].line() as other:
        for i in range(MAX_RUNS_AT_ONCE + 4):
            (one, other)[i % 2].say(t="run", idem=str(uuid.uuid4()), settings=settings())
        answers = [(one, other)[i % 2].hear("accepted", "error") for i in range(MAX_RUNS_AT_ONCE + 4)]
        for answer in answers:
            if answer["t"] == "accepted":
                one.say(t="stop", run=answer["run"])
        assert [a["t"] for a in answers].count("accepted") == MAX_RUNS_AT_ONCE
        assert {a["code"] for a in answers if a["t"] == "error"} == {"too_many_runs"}
        for answer in answers:
            if answer["t"] == "accepted":
                other.follow(answer["run"], [])
    for web in webs:
        web.process.kill()


@pytest.mark.skipif(not has_postgres(), reason="PostgreSQL is not installed")
def test_a_database_that_is_restarted_costs_no_token(several: Several, webs: Any) -> None:
    here, there = webs
    with here.line() as line, there.line() as other:
        run = line.run(settings())
        seen: list[dict[str, Any]] = []
        other.follow(run, seen, 8)
        several.restart_postgres()
        other.follow(run, seen)
    assert (seen[-1]["state"], seen[-1]["saved"]) == ("finished", True)
    assert text_of(seen, "A").split() == text_of(seen, "B").split() == WORDS


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
    leaving = several.web(3 * SLOW)
    with leaving.line() as line:
        run = line.run(settings())
        leaving.process.terminate()
        until(lambda: leaving.get("/readyz")[0] == 503, 20)
        line.say(t="run", idem="6b8f8a53-2b0c-4f2e-9d59-5f3ac8a6f3a1", settings=settings())
        refused = line.hear("error")
        seen: list[dict[str, Any]] = []
        line.follow(run, seen)
    assert (refused["code"], refused["retry_after"]) == ("draining", 3)
    assert seen[-1]["state"] == "finished"
    assert leaving.process.wait(20) == 0


def test_a_signal_that_any_of_its_threads_gets_is_obeyed(several: Several) -> None:
    leaving = several.web()
    process = leaving.process.pid
    for thread in sorted(int(name) for name in os.listdir(f"/proc/{process}/task")):
        if thread != process:
            assert LIBC.tgkill(process, thread, signal.SIGTERM) == 0
            break
    assert leaving.process.wait(20) == 0
