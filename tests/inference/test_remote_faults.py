"""What people see when a worker, a web process or Redis dies: a finished answer or a typed error, never a hang.

Each fault must end within 20 s on a machine that is not busy; the tests allow more, so that a slow one may be slow.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from inference.client import Inference, connect
from inference.serving import link
from inference.transports import hub
from inference.types import CreateVector, Failed, Finished, GenerationRequest, Pair, Result
from inference.worker import make_app
from tests.inference import stack
from tests.inference.stack import (
    Following,
    ForkedWorker,
    RedisServer,
    collect,
    info_of,
    long,
    needs_redis,
    tokens_of,
)
from tests.waiting import auntil

pytestmark = needs_redis

FAULT_SECONDS = 60.0
PAIRS = tuple(Pair(positive=f" calm reply {i}", negative=f" angry letter {i}", prompt=f"Case {i}:") for i in range(8))


class Workers:
    """Hands out workers that live. Those that a test did not kill serve the next one too."""

    def __init__(self, server: RedisServer, folder: Path, models: dict[str, str]):
        self.server, self.folder, self.models = server, folder, models
        self.living: list[ForkedWorker] = []
        self.started = 0

    async def ready(self, client: Inference, count: int) -> list[ForkedWorker]:
        """Exactly `count` workers that are ready with the first model."""
        self.living = [w for w in self.living if w.alive()]
        while len(self.living) > count:
            self.living.pop().kill()
        while len(self.living) < count:
            self.started += 1
            name = f"worker{self.started}"
            self.living.append(ForkedWorker(self.server.url, self.models["one"], self.folder, name))
        await stack.until_ready(client, *self.living)
        await auntil(lambda: serves(client, "one"), "the first model is served")
        return list(self.living)


@pytest.fixture(scope="module")
def workers(tiny_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    tmp = tmp_path_factory.mktemp("faults")
    models = {name: str(stack.stretch(tiny_folder("llama"), tmp / name)) for name in ("one", "two")}
    server = RedisServer(tmp)
    made = Workers(server, tmp, models)
    try:
        yield made
    finally:
        for worker in made.living:
            worker.kill()
        server.stop()


@pytest.fixture
async def client(workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Inference]:
    monkeypatch.setattr(link, "OUTAGE_SECONDS", 4.0)
    monkeypatch.setattr(hub, "HOME_SECONDS", 2.0)
    monkeypatch.setattr(hub, "RETURN_SECONDS", 1.0)
    inference = connect(workers.server.url, data_dir=tmp_path)
    yield inference
    await inference.close()


async def has_rows(client: Inference, rows: int) -> bool:
    return (await client.describe()).rows == rows


async def state_of(client: Inference, worker: ForkedWorker) -> str:
    info = await info_of(client, worker)
    return info.state if info else "gone"


async def test_when_a_worker_is_killed_the_begun_fails_and_the_rest_runs_elsewhere(
    client: Inference, workers: Workers
) -> None:
    doomed, other = await workers.ready(client, 2)
    spare = await info_of(client, other)
    assert spare
    await client.control(spare.id, "drain")
    await auntil(lambda: is_in(client, other, "draining"), "the other worker drains")
    job = Following(client, CreateVector("long", PAIRS * 1000))
    await job.tokens(0)  # its first report
    run = Following(client, long("killed"))
    await run.tokens(5)
    waiting = Following(client, CreateVector("short", PAIRS))
    await asyncio.sleep(0.5)  # to be claimed; if it is not yet, it is sent again all the same
    doomed.kill()
    await client.control(spare.id, "resume")
    for begun in (job, run):
        end = await begun.end(FAULT_SECONDS)
        assert isinstance(end, Failed) and (end.kind, end.code) == ("unavailable", "worker_lost") and end.retry_after
    assert isinstance(await waiting.end(FAULT_SECONDS), Result)
    assert len(tokens_of(run.events)) >= 5
    assert await is_in(client, doomed, "lost")


async def is_in(client: Inference, worker: ForkedWorker, state: str) -> bool:
    return await state_of(client, worker) == state


async def test_a_worker_that_hangs_is_a_typed_error_and_may_come_back(client: Inference, workers: Workers) -> None:
    (worker,) = await workers.ready(client, 1)
    run = Following(client, long("hung"))
    await run.tokens(5)
    worker.send(signal.SIGSTOP)
    try:
        end = await run.end(FAULT_SECONDS)
        assert isinstance(end, Failed) and end.code == "worker_lost"
        assert await is_in(client, worker, "lost")
        (event,) = await asyncio.wait_for(collect(client, long("nobody", 5)), FAULT_SECONDS)
        assert isinstance(event, Failed) and event.code == "no_worker" and event.retry_after
        info = await client.describe()
        assert info.state == "failed" and "inference.worker" in info.problem
    finally:
        worker.send(signal.SIGCONT)
    await workers.ready(client, 1)
    await auntil(lambda: has_rows(client, 0), "the row that failed is dropped")
    assert isinstance((await collect(client, long("after", 5)))[-1], Finished)


async def test_redis_restarted_in_mid_stream_loses_and_doubles_nothing(client: Inference, workers: Workers) -> None:
    await workers.ready(client, 1)
    expected = tokens_of(await collect(client, long("expected", 600)))
    run = Following(client, long("restarted", 600))
    await run.tokens(20)
    workers.server.stop()
    await asyncio.sleep(1.0)
    workers.server.start()
    end = await run.end(FAULT_SECONDS)
    assert isinstance(end, Finished)
    assert tokens_of(run.events) == expected
    assert isinstance((await collect(client, long("next", 5)))[-1], Finished)


async def test_without_redis_everything_is_a_typed_error(client: Inference, workers: Workers) -> None:
    await workers.ready(client, 1)
    run = Following(client, long("cut"))
    await run.tokens(5)
    workers.server.stop()
    try:
        asked = time.monotonic()
        info = await client.describe()
        assert info.state == "failed" and "Redis at 127.0.0.1" in info.problem
        assert time.monotonic() - asked < 10
        end = await run.end(FAULT_SECONDS)
        assert isinstance(end, Failed) and end.code == "redis_unreachable"
        (event,) = await asyncio.wait_for(collect(client, long("later")), FAULT_SECONDS)
        assert isinstance(event, Failed) and event.code == "redis_unreachable"
    finally:
        workers.server.start()
    await workers.ready(client, 1)
    assert isinstance((await collect(client, long("back", 5)))[-1], Finished)
    await auntil(lambda: has_rows(client, 0), "the row that nobody reads is gone")


async def test_sigterm_finishes_what_runs_and_refuses_the_new(client: Inference, workers: Workers) -> None:
    (worker,) = await workers.ready(client, 1)
    run = Following(client, long("last", 800))
    await run.tokens(5)
    worker.send(signal.SIGTERM)
    await auntil(lambda: is_in(client, worker, "draining"), "the worker drains")
    (event,) = await collect(client, long("late", 5))
    assert isinstance(event, Failed) and event.code == "draining" and event.retry_after
    assert isinstance(await run.end(), Finished)
    assert len(tokens_of(run.events)) == 800
    assert await worker.exit_code() == 0
    assert await info_of(client, worker) is None


async def test_a_worker_switches_its_model_and_finishes_what_runs(client: Inference, workers: Workers) -> None:
    (worker,) = await workers.ready(client, 1)
    info = await info_of(client, worker)
    assert info
    run = Following(client, long("before", 500))
    await run.tokens(1)
    await client.control(info.id, "load", workers.models["two"])
    assert isinstance(await run.end(), Finished)
    await auntil(lambda: serves(client, "two"), "the other model is ready")
    assert isinstance((await collect(client, long("switched", 5)))[-1], Finished)
    (gone,) = await collect(client, GenerationRequest("x", model="one", prompt="a"))
    assert isinstance(gone, Failed) and gone.code == "model_not_served"
    await client.control(info.id, "load", workers.models["one"])
    await auntil(lambda: serves(client, "one"), "the first model is back")


async def serves(client: Inference, model: str) -> bool:
    return (await client.describe(model)).state == "ready"


async def test_another_web_process_can_cancel(client: Inference, workers: Workers, tmp_path: Path) -> None:
    await workers.ready(client, 1)
    other = connect(workers.server.url, data_dir=tmp_path / "other")
    runs = [Following(client, long("theirs")) for _ in range(3)]  # the samples of one request share its id
    for run in runs:
        await run.tokens(3)
    await other.cancel("theirs")
    ends = [await run.end() for run in runs]
    await other.close()
    assert all(isinstance(end, Finished) and end.reason == "cancelled" for end in ends)


async def test_the_rows_of_a_killed_web_process_are_dropped(
    client: Inference, workers: Workers, tmp_path: Path
) -> None:
    await workers.ready(client, 1)
    web = stack.nursery().Process(target=read_forever, args=(workers.server.url, tmp_path))
    web.start()
    await auntil(lambda: has_rows(client, 1), "its row is seen")
    web.kill()
    web.join()
    await auntil(lambda: has_rows(client, 0), "its row is gone")


def read_forever(url: str, folder: Path) -> None:
    link.READER_SECONDS = stack.READER_SECONDS
    asyncio.run(collect(connect(url, data_dir=folder), long("orphan")))


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_a_worker_refuses_any_pool_but_threads(pool: str) -> None:
    app = make_app("redis://localhost:1/0", model="", name="", data="unused", dtype="float32")
    with pytest.raises(SystemExit, match="threads pool"):
        app.Worker(pool=pool, concurrency=1)
