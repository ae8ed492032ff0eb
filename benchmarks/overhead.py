"""How long a token takes from the engine to each of 20 viewers: a real server process, real websockets, loopback."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar
from pathlib import Path
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from benchmarks.common import DATA, ROOT, percentile, record, table

PORT = int(os.environ.get("PORT", "8017"))
URL = f"http://127.0.0.1:{PORT}"
VIEWERS = 20
RUNS = 3
TOKENS = 96
LIMIT_MS = 50
START_SECONDS = 240
PROMPT = "Tell me a long story about a lighthouse keeper."

Arrivals = dict[tuple[str, int], float]  # (lane, index of the token) -> seconds of the monotonic clock


@dataclass
class Viewer:
    """One websocket that follows runs and notes when each token reaches it."""

    socket: ClientConnection

    async def hello(self) -> None:
        assert json.loads(await self.socket.recv())["t"] == "hello"

    async def start(self, settings: dict[str, object]) -> str:
        """Start a run, which also subscribes to it; its id."""
        await self.socket.send(json.dumps({"t": "run", "idem": str(uuid4()), "settings": settings}))
        while (answer := json.loads(await self.socket.recv()))["t"] != "accepted":
            if answer["t"] == "error":
                raise RuntimeError(answer["message"])
        return str(answer["run"])

    async def subscribe(self, run: str) -> None:
        await self.socket.send(json.dumps({"t": "subscribe", "run": run, "after": -1}))

    async def watch(self) -> Arrivals:
        arrivals: Arrivals = {}
        counts: dict[str, int] = {}
        while True:
            message = json.loads(await self.socket.recv())
            now = time.monotonic()
            for event in message.get("events", ()):
                if event["t"] == "run_finished":
                    return arrivals
                if event["t"] == "token":
                    lane = event["lane"]
                    arrivals[lane, counts.get(lane, 0)] = now
                    counts[lane] = counts.get(lane, 0) + 1


async def measure() -> None:
    delays: list[float] = []
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as link:
        cookie = sign_in(link)
        viewers = await asyncio.gather(*(open_viewer(cookie) for _ in range(VIEWERS)))
        for seed in range(RUNS):
            delays += await watch_one_run(viewers, seed, Path(folder) / "emitted")
        for viewer in viewers:
            await viewer.socket.close()
    report(delays)


async def watch_one_run(viewers: list[Viewer], seed: int, emitted: Path) -> list[float]:
    """Milliseconds from emission to arrival, for every token of two lanes and every viewer."""
    run = await viewers[0].start(settings(seed))
    await asyncio.gather(*(viewer.subscribe(run) for viewer in viewers[1:]))
    begun = time.monotonic()
    arrivals = await asyncio.gather(*(viewer.watch() for viewer in viewers))
    sent = emissions(emitted, run)
    assert all(seen.keys() == sent.keys() for seen in arrivals), "a viewer missed a token or saw one twice"
    # Tokens from before the last subscription come late by the viewer's own doing.
    return [1000 * (seen[key] - sent[key]) for seen in arrivals for key in sent if sent[key] > begun + 0.5]


def settings(seed: int) -> dict[str, object]:
    sampling = {"max_tokens": TOKENS, "temperature": 0.9, "seed": seed, "ignore_eos": True}
    return {
        "mode": "chat",
        "input": PROMPT,
        "sampling": {**sampling, "logprobs": True, "top_logprobs": 5},
        "lanes": [{"key": "A", "name": "Base"}, {"key": "B", "name": "Prompted", "system_prompt": "Be brief."}],
    }


def emissions(path: Path, run: str) -> Arrivals:
    lines = (line.split() for line in path.read_text().splitlines())
    return {(id.rpartition(":")[2], int(index)): float(at) for id, index, at in lines if run in id}


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The server over a database of its own and the usual converted model; the one-time link that signs in."""
    (folder / "data").mkdir()
    if (DATA / "models").exists():
        (folder / "data" / "models").symlink_to(DATA / "models")
    command = [sys.executable, "-m", "benchmarks.timed_server", str(folder / "emitted"), str(PORT)]
    env = {**os.environ, "STEERBOARD_DATA": str(folder / "data"), "PYTHONUNBUFFERED": "1"}
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=said, stderr=subprocess.STDOUT)
    try:
        yield wait_until_ready(process, folder / "said")
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(process: subprocess.Popen[bytes], said: Path) -> str:
    """The sign-in link, once the model is loaded. Raises RuntimeError with what the server said instead."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        text = said.read_text()
        if "is ready, loaded" in text:
            return re.findall(r"http\S+/accounts/link/\S+", text)[0]
        time.sleep(0.3)
    raise RuntimeError(f"The server did not start. It said:\n{said.read_text()}")


def sign_in(link: str) -> str:
    """The cookies of a session begun by a one-time link."""
    jar = CookieJar()
    urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar)).open(link).close()
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)


async def open_viewer(cookie: str) -> Viewer:
    socket = await connect(
        URL.replace("http", "ws") + "/ws/playground/",
        origin=Origin(URL),
        subprotocols=[Subprotocol("steerboard.v1")],
        additional_headers={"Cookie": cookie},
        max_size=None,
    )
    viewer = Viewer(socket)
    await viewer.hello()
    return viewer


def report(delays: list[float]) -> None:
    p50, p95, p99 = (percentile(delays, share) for share in (0.5, 0.95, 0.99))
    table(
        f"From the engine to a viewer, {VIEWERS} viewers of {RUNS} runs of two lanes, {len(delays)} arrivals",
        [("p50", f"{p50:.1f} ms"), ("p95", f"{p95:.1f} ms   (limit {LIMIT_MS})"), ("p99", f"{p99:.1f} ms")],
    )
    record(
        "overhead",
        {
            "viewers": VIEWERS,
            "arrivals": len(delays),
            "p50_ms": round(p50, 2),
            "p95_ms": round(p95, 2),
            "p99_ms": round(p99, 2),
            "max_ms": round(max(delays), 2),
            "limit_ms": LIMIT_MS,
            "holds": p95 <= LIMIT_MS,
        },
    )


if __name__ == "__main__":
    asyncio.run(measure())
