"""A real redis-server and real workers on free ports, for tests of the remote transport."""

from __future__ import annotations

import asyncio
import functools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis
import torch

from inference import worker
from inference.client import Inference
from inference.serving import link
from inference.types import TERMINAL, Event, GenerationRequest, JobRequest, SamplingParams, Token, WorkerInfo
from scripts.servers import free_port
from tests.waiting import PATIENCE, auntil

ROOT = Path(__file__).resolve().parents[2]
READER_SECONDS = 2  # for forked workers
ENDLESS = 20_000  # tokens: more than any test waits for
needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


class RedisServer:
    """Keeps nothing on disk, so that `stop` and `start` lose everything, as a container without a volume does."""

    def __init__(self, folder: Path):
        self.folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(
            ["redis-server", *options, "--dir", str(self.folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        client = redis.Redis(port=self.port)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                assert time.monotonic() < deadline, "redis-server does not start"
                time.sleep(0.02)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class WorkerProcess:
    """`python -m inference.worker`, as anybody starts it. `options` stand last, so that theirs count."""

    def __init__(
        self, url: str, model: str, folder: Path, name: str, python: str = sys.executable, options: Sequence[str] = ()
    ):
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [python, "-m", "inference.worker", *options_of(url, model, folder, name), *options],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.pid = self.process.pid

    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class ForkedWorker:
    """The same, forked from a process that has imported everything, which spares seconds; for tests that kill many."""

    def __init__(self, url: str, model: str, folder: Path, name: str):
        self.log = folder / f"{name}.log"
        self.process = nursery().Process(target=_work, args=(options_of(url, model, folder, name), self.log))
        self.process.start()
        assert self.process.pid
        self.pid = self.process.pid

    def alive(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def send(self, signal: signal.Signals) -> None:
        os.kill(self.pid, signal)

    async def exit_code(self) -> int | None:
        await asyncio.to_thread(self.process.join, PATIENCE)
        return self.process.exitcode


@functools.cache
def nursery() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["inference.worker", "inference.serving.node"])
    return context


def _work(options: list[str], log: Path) -> None:
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    link.READER_SECONDS = READER_SECONDS
    sys.exit(worker.main(options))


def options_of(url: str, model: str, folder: Path, name: str) -> list[str]:
    return ["--url", url, "--model", model, "--name", name, "--data", str(folder), "--dtype", "float64"]


async def info_of(client: Inference, worker: WorkerProcess | ForkedWorker) -> WorkerInfo | None:
    own = [w for w in await client.workers() if w.pid == worker.pid]
    return own[0] if own else None


async def until_ready(client: Inference, *workers: WorkerProcess | ForkedWorker) -> None:
    async def ready() -> bool:
        infos = [await info_of(client, w) for w in workers]
        assert all(w.alive() for w in workers), "\n".join(w.log.read_text() for w in workers)
        return all(info and info.state == "ready" for info in infos)

    await auntil(ready, "the workers are ready")


async def collect(client: Inference, request: GenerationRequest | JobRequest) -> list[Event]:
    stream = client.generate(request) if isinstance(request, GenerationRequest) else client.run(request)
    return [event async for event in stream]


class Following:
    """A request whose events are collected by a task."""

    def __init__(self, client: Inference, request: GenerationRequest | JobRequest):
        self.events: list[Event] = []
        self._stream = client.generate(request) if isinstance(request, GenerationRequest) else client.run(request)
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for event in self._stream:
            self.events.append(event)

    async def tokens(self, n: int) -> None:
        async def enough() -> bool:
            ended = self.events and isinstance(self.events[-1], TERMINAL)
            assert not ended, f"ended early: {self.events[-1]}"
            return len(self.events) > n

        await auntil(enough, f"{n} tokens were written")

    async def end(self, within: float = PATIENCE) -> Event:
        await asyncio.wait_for(self.task, within)
        assert [e.seq for e in self.events] == list(range(len(self.events)))
        assert sum(isinstance(e, TERMINAL) for e in self.events) == 1
        return self.events[-1]


def tokens_of(events: list[Event]) -> list[int]:
    return [e.token_id for e in events if isinstance(e, Token)]


def long(id: str, max_tokens: int = ENDLESS) -> GenerationRequest:
    sampling = SamplingParams(max_tokens=max_tokens, seed=7, ignore_eos=True)
    return GenerationRequest(id, token_ids=(5, 6, 7), sampling=sampling)


def stretch(folder: Path, target: Path) -> Path:
    """A copy of a tiny model with room for `ENDLESS` tokens, under the name of `target`."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2 * ENDLESS}))
    return target
