"""How requests of one event loop reach the engine of its process: together, and never behind their own end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from inference import arrivals
from inference.batch import Batch, Row
from inference.errors import Unavailable
from inference.transports import courier
from inference.transports.inprocess import InProcess
from inference.types import Failed, Finished, GenerationRequest, SamplingParams
from tests.inference import stack
from tests.inference.stack import collect, long
from tests.waiting import auntil


@pytest.fixture(scope="module")
def inference(tiny_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    tmp = tmp_path_factory.mktemp("inprocess")
    client = InProcess(str(stack.stretch(tiny_folder("llama"), tmp / "tiny-llama")), data_dir=tmp, dtype="float64")

    async def ready() -> bool:
        return (await client.describe()).state == "ready"

    asyncio.run(auntil(ready, "the model is loaded"))
    yield client
    asyncio.run(client.close())


def short(id: str) -> GenerationRequest:
    return GenerationRequest(id, token_ids=(5, 6, 7, 8), sampling=SamplingParams(max_tokens=3, seed=1, ignore_eos=True))


async def nothing_runs(inference: InProcess) -> None:
    async def idle() -> bool:
        return not inference.engine.busy and inference.host._open == 0

    await auntil(idle, "nothing runs")


async def test_requests_of_one_turn_of_the_loop_are_read_together(
    inference: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    join = Batch.join

    def noted(self: Batch, rows: Sequence[Row]) -> None:
        groups.append(len(rows))
        join(self, rows)

    monkeypatch.setattr(Batch, "join", noted)
    for _ in range(5):  # the engine sleeps before each, and would begin with the first
        answers = await asyncio.gather(*(collect(inference, short(f"r{i}")) for i in range(6)))
        assert all(isinstance(events[-1], Finished) for events in answers)
        await nothing_runs(inference)
    assert groups == [6] * 5


async def test_who_leaves_before_the_request_is_handed_over_leaves_nothing_behind(inference: InProcess) -> None:
    stream = inference.generate(long("gone"))
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)  # it was prepared, and is to be handed over in the next turn
    assert inference.host._open == 1
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await nothing_runs(inference)


@pytest.mark.parametrize("how", ["leaves", "stops"])
async def test_who_goes_while_company_is_waited_for_leaves_nothing_behind(
    inference: InProcess, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(courier, "COMPANY_SECONDS", 1e9)
    with arrivals.announced(), arrivals.announced():
        events = asyncio.ensure_future(collect(inference, long("gone")))
        await asyncio.sleep(0.02)
        assert not inference.engine.busy and inference.host._open == 1
        if how == "leaves":
            events.cancel()
            with pytest.raises(asyncio.CancelledError):
                await events
        else:
            await inference.cancel("gone")
            end = (await events)[-1]
            assert isinstance(end, Finished) and end.reason == "cancelled"
        await nothing_runs(inference)


async def test_who_leaves_while_a_thread_checks_the_request_leaves_nothing_behind(
    inference: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go, begun, submit = threading.Event(), threading.Event(), threading.Event(), inference.host.submit

    def slow(*args: Any) -> None:
        entered.set()
        assert go.wait(10)
        submit(*args)
        begun.set()

    monkeypatch.setattr(inference.host, "submit", slow)
    text = "a word " * 1000  # too much for the loop
    request = GenerationRequest("gone", prompt=text, sampling=SamplingParams(max_tokens=stack.ENDLESS, ignore_eos=True))
    first = asyncio.ensure_future(anext(inference.generate(request)))
    await asyncio.to_thread(entered.wait, 10)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go.set()
    assert await asyncio.to_thread(begun.wait, 10)
    await nothing_runs(inference)


async def test_what_is_refused_while_it_is_checked_counts_as_nothing(
    inference: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise Unavailable("full", "There is no room. Come again.", retry_after=1.0)

    monkeypatch.setattr(inference.engine, "prepare", full)
    for request in (short("quick"), GenerationRequest("slow", prompt="a word " * 1000)):
        (failed,) = await collect(inference, request)
        assert isinstance(failed, Failed) and failed.code == "full"
    assert inference.host._open == 0
