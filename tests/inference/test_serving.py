"""What a worker does when it is named oddly, told the impossible, or has the wrong weights under a right name."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from inference.client import connect
from inference.errors import NotFound
from inference.serving import link, node
from inference.serving.host import ModelHost
from inference.serving.node import Node, plain
from inference.serving.vectors import RedisVectors
from inference.store import VectorStore
from inference.types import WorkerInfo
from tests.inference import tiny
from tests.inference.stack import RedisServer, needs_redis
from tests.steering.vector_files import file_of, make_vector
from tests.waiting import auntil, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path_factory.mktemp("redis"))
    yield made
    made.stop()


@needs_redis
async def test_another_revision_of_a_served_model_waits_until_it_is_alone(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "REVISION_SECONDS", 2)
    client = connect(server.url, data_dir=tmp_path)
    queues: dict[str, str] = {}
    nodes: list[Node] = []

    def start(name: str, seed: int) -> Node:
        folder = tiny.save("llama", tmp_path / name / "same-name", seed)
        nodes.append(
            Node(
                server.url,
                str(folder),
                name=name,
                data_dir=tmp_path,
                dtype="float32",
                consume=lambda queue: queues.update({name: queue}),
                put_back=lambda message: None,
            )
        )
        return nodes[-1]

    async def state(name: str) -> WorkerInfo:
        return next(w for w in await client.workers() if w.id.startswith(name))

    async def is_in(name: str, wanted: str) -> bool:
        return any(w.state == wanted for w in await client.workers() if w.id.startswith(name))

    try:
        first = start("first", 1)
        await auntil(lambda: is_in("first", "ready"), "the first is ready")
        start("second", 2)
        await auntil(lambda: is_in("second", "failed"), "the second refuses")
        refused = (await state("second")).model
        assert refused and "unload the others" in refused.problem
        assert queues["second"] == "" != queues["first"]
        assert (await client.describe("same-name")).state == "ready"
        await asyncio.to_thread(first.close, 0.0)
        await auntil(lambda: is_in("second", "ready"), "the second takes over")
        assert queues["second"] == link.queue_of("same-name")
    finally:
        for each in nodes:
            await asyncio.to_thread(each.close, 0.0)
        await client.close()


@pytest.mark.parametrize(
    ("name", "id"),
    [("gpu-1.lan", "gpu-1.lan"), ("rack 3/gpu 1", "rack-3-gpu-1"), ("<b>", "b"), ("…", "worker"), ("x" * 99, "x" * 60)],
)
def test_a_worker_is_named_so_that_its_name_can_stand_in_an_address(name: str, id: str) -> None:
    assert plain(name) == id


@needs_redis
def test_a_vector_under_the_name_of_another_is_not_used(server: RedisServer) -> None:
    connection = redis.Redis(port=server.port)
    vector, other = make_vector(seed=1), make_vector(seed=2)
    connection.set(link.key("vector", vector.id), file_of(other))
    vectors = RedisVectors(connection, server.url)
    with pytest.raises(NotFound, match="another vector"):
        vectors.get(vector.id)
    connection.set(link.key("vector", vector.id), file_of(vector))
    assert vectors.get(vector.id).id == vector.id


async def test_a_command_that_fails_does_not_end_the_host(
    tiny_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = ModelHost("", vectors=VectorStore(tmp_path), cache_dir=tmp_path, dtype="float32", drain_seconds=0.1)
    start = host._start

    async def is_in(state: str) -> bool:
        return host.state == state

    def refuse(name: str) -> None:
        monkeypatch.setattr(host, "_start", start)
        raise MemoryError(name)

    monkeypatch.setattr(host, "_start", refuse)
    host.control("load", "too large")
    host.control("load", str(tiny_folder("llama")))
    await auntil(lambda: is_in("ready"), "the next model is loaded")
    host.close()


def test_what_stays_is_left_alone_by_the_collector_and_a_model_that_goes_is_not_kept(tmp_path: Path) -> None:
    folder = tiny.save("llama", tmp_path / "model")
    host = ModelHost(str(folder), vectors=VectorStore(tmp_path), cache_dir=tmp_path, dtype="float32", drain_seconds=0.1)
    try:
        until(lambda: host.state == "ready")
        assert gc.get_freeze_count() > 10_000
        assert host.engine
        model = weakref.ref(host.engine._model)
        host.control("unload")
        until(lambda: host.state == "empty")
        until(lambda: model() is None)
        assert gc.get_freeze_count() == 0
    finally:
        host.close()
