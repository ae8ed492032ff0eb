"""Rows of one request, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from inference.types import Event, GenerationRequest, Started
from steering import gateway
from steering.api.openai.rows import Rows
from tests.fake_inference import FakeInference


class Prompted(FakeInference):
    """Says something when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.now = asyncio.Event()

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        await self.now.wait()
        yield Started(request.id, 0, prompt_tokens=1, seed=0)
        await asyncio.Event().wait()


@pytest.mark.parametrize("ticks", range(8))
async def test_a_reader_that_is_cancelled_as_an_event_comes_is_cancelled(
    ticks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`asyncio.wait_for` of Python 3.11 gives the event instead, and the rows of a client that has gone go on."""
    model = Prompted()
    monkeypatch.setattr(gateway, "inference", lambda: model)

    async def always() -> bool:
        return True

    rows = Rows((GenerationRequest("one", prompt="p"),), always, lambda: None)
    reader = asyncio.create_task(rows.take(60))
    await asyncio.sleep(0.01)
    model.now.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    if not reader.done():
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
    rows.close()
