"""How long a token takes from the engine to each of 20 viewers: a real server process, real websockets, loopback."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from benchmarks.common import Options, options, percentile, record, table
from benchmarks.web import Arrivals, Viewer, inference_settings, open_viewer, server, sign_in

VIEWERS = 20
RUNS = 3
TOKENS = 96
LIMIT_MS = 50
PROMPT = "Tell me a long story about a lighthouse keeper."


async def measure(chosen: Options) -> None:
    viewers, runs, tokens = (2, 1, 24) if chosen.quick else (VIEWERS, RUNS, TOKENS)
    delays: list[float] = []
    with (
        tempfile.TemporaryDirectory() as name,
        server(Path(name), **inference_settings(chosen.model, chosen.dtype)) as it,
    ):
        it.wait_until_ready()
        cookie = sign_in(it.link())
        watching = await asyncio.gather(*(open_viewer(cookie) for _ in range(viewers)))
        for seed in range(runs):
            delays += await watch_one_run(watching, settings(seed, tokens), it.emitted)
        for viewer in watching:
            await viewer.socket.close()
    report(chosen, viewers, runs, delays)


async def watch_one_run(viewers: list[Viewer], what: dict[str, object], emitted: Path) -> list[float]:
    """Milliseconds from emission to arrival, for every token of two lanes and every viewer."""
    run = await viewers[0].start(what)
    await asyncio.gather(*(viewer.subscribe(run) for viewer in viewers[1:]))
    begun = time.monotonic()
    arrivals = await asyncio.gather(*(viewer.watch() for viewer in viewers))
    sent = emissions(emitted, run)
    assert all(seen.keys() == sent.keys() for seen in arrivals), "a viewer missed a token or saw one twice"
    # Tokens from before the last subscription come late by the viewer's own doing.
    return [1000 * (seen[key] - sent[key]) for seen in arrivals for key in sent if sent[key] > begun + 0.5]


def settings(seed: int, tokens: int) -> dict[str, object]:
    sampling = {"max_tokens": tokens, "temperature": 0.9, "seed": seed, "ignore_eos": True}
    return {
        "mode": "chat",
        "input": PROMPT,
        "sampling": {**sampling, "logprobs": True, "top_logprobs": 5},
        "lanes": [{"key": "A", "name": "Base"}, {"key": "B", "name": "Prompted", "system_prompt": "Be brief."}],
    }


def emissions(path: Path, run: str) -> Arrivals:
    lines = (line.split() for line in path.read_text().splitlines())
    return {(id.rpartition(":")[2], int(index)): float(at) for id, index, at in lines if run in id}


def report(chosen: Options, viewers: int, runs: int, delays: list[float]) -> None:
    p50, p95, p99 = (percentile(delays, share) for share in (0.5, 0.95, 0.99))
    table(
        f"From the engine to a viewer, {viewers} viewers of {runs} runs of two lanes, {len(delays)} arrivals",
        [("p50", f"{p50:.1f} ms"), ("p95", f"{p95:.1f} ms   (limit {LIMIT_MS})"), ("p99", f"{p99:.1f} ms")],
    )
    record(
        "overhead",
        {
            "viewers": viewers,
            "arrivals": len(delays),
            "p50_ms": round(p50, 2),
            "p95_ms": round(p95, 2),
            "p99_ms": round(p99, 2),
            "max_ms": round(max(delays), 2),
            "limit_ms": LIMIT_MS,
            "dtype": chosen.dtype,
            "holds": p95 <= LIMIT_MS,
        },
        keep=not chosen.quick,
    )


if __name__ == "__main__":
    asyncio.run(measure(options(__doc__)))
