"""Runs in a Python that has vLLM: holds a client of that engine, takes orders as JSON lines, and answers them.

    python -m tests.inference.vllm_side FOLDER DATA

No pytest here: what is expected is checked by the tests that started it (`vllm_process.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from inference.client import Inference, connect
from inference.transports.inprocess import InProcess
from inference.types import JOB_REQUESTS, GenerationRequest, Token


class Spy:
    """What the blocks hand on, of each row: [layers][positions][d_model]."""

    def __init__(self, client: InProcess):
        self._engine: Any = client.engine
        self.seen: dict[str, list[list[Any]]] = {}
        for layer, block in enumerate(self._engine.batch.model.layers):
            block.register_forward_hook(self._hook(layer))

    def _hook(self, layer: int) -> Any:
        def hook(module: object, args: object, output: Any) -> None:
            stream = output[0] + output[1] if isinstance(output, tuple) else output
            stream = stream.flatten(0, -2)
            batch, runs = self._engine.batch, self._engine._running
            for span in batch._spans:
                name = runs[batch._rows[span.id]].id
                layers = self.seen.setdefault(name, [[] for _ in batch.model.layers])
                layers[layer] += stream[span.place : span.place + span.count].tolist()

        return hook


async def collect(client: Inference, request: GenerationRequest, cancel_at: int | None) -> list[dict[str, Any]]:
    events = []
    async for event in client.generate(request):
        events.append(event.to_wire())
        if isinstance(event, Token) and event.seq == cancel_at:
            await client.cancel(request.id)
    return events


class Side:
    def __init__(self, client: InProcess):
        self.client = client

    async def generate(self, order: dict[str, Any]) -> dict[str, Any]:
        """All of `requests` at once; with `spy`, what the blocks handed on too."""
        spy = Spy(self.client) if order.get("spy") else None
        requests = [GenerationRequest.from_wire(wire) for wire in order["requests"]]
        events = await asyncio.gather(*(collect(self.client, r, order.get("cancel_at")) for r in requests))
        return {"events": events, "seen": spy.seen if spy else {}}

    async def run(self, order: dict[str, Any]) -> dict[str, Any]:
        job = JOB_REQUESTS[order["job"]["kind"]].from_wire(order["job"])
        return {"events": [event.to_wire() async for event in self.client.run(job)]}

    async def put(self, order: dict[str, Any]) -> dict[str, Any]:
        return {"id": (await self.client.put_vector(bytes.fromhex(order["data"]))).id}

    async def load(self, order: dict[str, Any]) -> dict[str, Any]:
        await self.client.control("inprocess", "load", order["model"])
        while (await self.client.describe()).id != Path(order["model"]).name:
            await asyncio.sleep(0.02)
        return await self.describe(order)

    async def describe(self, order: dict[str, Any]) -> dict[str, Any]:
        while (info := await self.client.describe()).state == "loading":
            await asyncio.sleep(0.02)
        return {"info": info.to_wire(), "pid": os.getpid(), "copied": self.client.engine._copy is not None}

    async def spoil(self, order: dict[str, Any]) -> dict[str, Any]:
        """The next pass of `rows` or more fails in the midst of it; `for_good`: and vLLM cannot go on after it."""
        if order.get("for_good"):
            self.client.engine.batch._core.recover = lambda ids: 1 / 0
        block: Any = self.client.engine.batch.model.layers[2]

        def fail(*_: object) -> None:
            if len(self.client.engine.batch.rows) < order.get("rows", 1):
                return
            hook.remove()
            raise ZeroDivisionError("spoilt by a test")

        hook = block.register_forward_hook(fail)
        return {}


async def serve(folder: str, data: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries may print what they like
    client = connect(f"vllm://{folder}", data_dir=Path(data), dtype="float32")
    assert isinstance(client, InProcess)
    side = Side(client)
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        answers.write(json.dumps(await getattr(side, order["do"])(order)) + "\n")
    await client.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    asyncio.run(serve(*sys.argv[1:]))
