from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from inference.errors import InvalidRequest, Unavailable
from steering import gateway
from tests.waiting import until


async def thread_name() -> str:
    return threading.current_thread().name


def test_work_runs_on_one_loop_in_a_thread_of_its_own() -> None:
    assert gateway.call(thread_name()) == gateway.spawn(thread_name()).result(5) == "steering-loop"
    assert gateway.loop() is gateway.loop()


@pytest.mark.parametrize("on_it", [True, False])
def test_what_is_joined_runs_on_the_loop_wherever_it_is_awaited(on_it: bool) -> None:
    assert _awaited(gateway.joined(thread_name()), on_it) == "steering-loop"


@pytest.mark.parametrize("on_it", [True, False])
def test_who_leaves_what_is_joined_ends_it(on_it: bool) -> None:
    began, ended = threading.Event(), threading.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async def leave() -> None:
        waiting = asyncio.create_task(gateway.joined(work()))
        await asyncio.to_thread(began.wait)
        waiting.cancel()

    _awaited(leave(), on_it)
    assert ended.wait(10)


def _awaited(coro: Coroutine[Any, Any, Any], on_it: bool) -> Any:
    return gateway.call(coro) if on_it else asyncio.run(coro)


def test_waiting_ends_with_a_sentence() -> None:
    with pytest.raises(Unavailable, match="did not answer"):
        gateway.call(asyncio.sleep(5), timeout=0.05)


def test_what_background_work_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"):
        gateway.spawn(fail()).result(5)
    until(lambda: caplog.records)
    assert "the reason" in caplog.text


def test_an_address_nobody_understands_is_a_state_of_the_model_with_a_cure(settings) -> None:
    settings.INFERENCE_URL = "elsewhere://nowhere"
    gateway.set_inference(None)
    with pytest.raises(InvalidRequest):
        gateway.inference()
    info = gateway.model_info()
    gateway.set_inference(None)
    assert info.state == "failed"
    assert "inprocess://default" in info.problem


def test_a_model_that_does_not_answer_is_a_state_too(fake_inference) -> None:
    async def silent(model: str = "") -> None:
        await asyncio.sleep(5)

    fake_inference.describe = silent
    assert gateway.model_info(timeout=0.05).state == "failed"
