from __future__ import annotations

import asyncio
import threading
import time

import pytest

from inference.errors import InvalidRequest, Unavailable
from steering import gateway


async def thread_name() -> str:
    return threading.current_thread().name


def test_work_runs_on_one_loop_in_a_thread_of_its_own() -> None:
    assert gateway.call(thread_name()) == gateway.spawn(thread_name()).result(5) == "steering-loop"
    assert gateway.loop() is gateway.loop()


def test_waiting_ends_with_a_sentence() -> None:
    with pytest.raises(Unavailable, match="did not answer"):
        gateway.call(asyncio.sleep(5), timeout=0.05)


def test_what_background_work_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"):
        gateway.spawn(fail()).result(5)
    for _ in range(100):
        if caplog.records:
            break
        time.sleep(0.01)
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
