"""How long a stopped completion stays in the batch, with neighbours running and while a vector is being built."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace

from benchmarks.common import Options, chat, events, open_model, options, percentile, record, some_direction, table
from inference.transports.inprocess import InProcess
from inference.types import CreateVector, Pair

TRIALS = 50
LIMIT_MS = 300
NEIGHBOURS = 3
PROMPT = "Tell me a long story about a lighthouse."


async def measure(chosen: Options) -> None:
    inference = await open_model(chosen.model, chosen.dtype)
    trials = 3 if chosen.quick else TRIALS
    try:
        quiet = [await trial(inference, f"quiet-{i}") for i in range(trials)]
        async with building(inference):
            busy = [await trial(inference, f"busy-{i}") for i in range(trials)]
    finally:
        await inference.close()
    report(chosen, quiet, busy)


async def trial(inference: InProcess, name: str) -> float:
    """Milliseconds from asking to stop one of several rows until the batch is one row smaller."""
    info = await inference.describe()
    edit = some_direction(seed=1, layer=info.n_layers // 3, width=info.d_model)
    others = [
        asyncio.create_task(events(inference, chat(f"{name}-{i}", PROMPT, max_tokens=400))) for i in range(NEIGHBOURS)
    ]
    victim = asyncio.create_task(events(inference, replace(chat(name, PROMPT, max_tokens=400), interventions=(edit,))))
    await rows(inference, NEIGHBOURS + 1)
    await asyncio.sleep(random.Random(name).uniform(0.05, 0.4))
    asked = time.perf_counter()
    await inference.cancel(name)
    await rows(inference, NEIGHBOURS)
    gone = time.perf_counter()
    for i in range(NEIGHBOURS):
        await inference.cancel(f"{name}-{i}")
    await asyncio.gather(victim, *others)
    return 1000 * (gone - asked)


async def rows(inference: InProcess, wanted: int) -> None:
    while (await inference.describe()).rows != wanted:
        await asyncio.sleep(0.001)


class building:
    """Keeps one extraction after another running in the same engine."""

    def __init__(self, inference: InProcess):
        self._inference = inference
        pair = Pair("Breathe in slowly, there is plenty of time.", "Hurry up, I have had enough of this!", "What now?")
        self._job = CreateVector("build", (pair,) * 400, chat=True)

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._go_on())

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _go_on(self) -> None:
        while True:
            async for _ in self._inference.run(self._job):
                pass


def report(chosen: Options, quiet: list[float], busy: list[float]) -> None:
    p95 = max(percentile(quiet, 0.95), percentile(busy, 0.95))
    table(
        f"From asking to stop until the row is gone, {len(quiet)} trials each, {NEIGHBOURS} rows beside it",
        [
            ("alone", f"p50 {percentile(quiet, 0.5):.0f} ms, p95 {percentile(quiet, 0.95):.0f} ms"),
            ("while a vector is built", f"p50 {percentile(busy, 0.5):.0f} ms, p95 {percentile(busy, 0.95):.0f} ms"),
            ("limit", f"{LIMIT_MS} ms"),
        ],
    )
    record(
        "stop",
        {
            "dtype": chosen.dtype,
            "trials": len(quiet),
            "p50_ms": round(percentile(quiet, 0.5), 1),
            "p95_ms": round(percentile(quiet, 0.95), 1),
            "while_building_p50_ms": round(percentile(busy, 0.5), 1),
            "while_building_p95_ms": round(percentile(busy, 0.95), 1),
            "limit_ms": LIMIT_MS,
            "holds": p95 <= LIMIT_MS,
        },
        keep=not chosen.quick,
    )


if __name__ == "__main__":
    asyncio.run(measure(options(__doc__)))
