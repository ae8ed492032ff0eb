"""The reader's side of the protocol, against a worker that the test plays: what it loses, doubles and delays."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from inference.client import Inference, connect
from inference.errors import NotFound
from inference.serving import link
from inference.serving.leases import Leases
from inference.serving.node import Node, Pulse
from inference.serving.outbox import Outbox
from inference.store import VectorStore
from inference.transports import hub
from inference.types import (
    CreateVector,
    Event,
    Failed,
    Finished,
    ModelInfo,
    Pair,
    Receipt,
    Result,
    Started,
    Token,
    Usage,
    WorkerInfo,
)
from tests.inference.stack import Following, RedisServer, long, needs_redis
from tests.steering.vector_files import file_of, make_vector
from tests.waiting import auntil, until

pytestmark = needs_redis
MODEL = "played"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path_factory.mktemp("redis"))
    yield made
    made.stop()


@pytest.fixture
def played(server: RedisServer) -> Iterator[PlayedWorker]:
    worker = PlayedWorker(server)
    yield worker
    worker.redis.flushall()


@pytest.fixture
async def client(
    server: RedisServer, played: PlayedWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Inference]:
    monkeypatch.setattr(hub, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(hub, "TAKE_SECONDS", 60.0)
    monkeypatch.setattr(link, "LOST_SECONDS", 50.0)  # the worker says only once that it lives
    monkeypatch.setattr(link, "OUTAGE_SECONDS", 2.0)
    played.beat()
    inference = connect(server.url, data_dir=tmp_path)
    yield inference
    await inference.close()


class PlayedWorker:
    """A worker by hand: says that it lives, takes messages off its queue, and writes events as it is told."""

    def __init__(self, server: RedisServer, id: str = "played-1"):
        self.redis, self.id = redis.Redis(port=server.port), id
        self.leases = Leases(self.redis, id)

    def beat(self, state: str = "ready") -> None:
        info = WorkerInfo(self.id, "here", 1, state, ModelInfo("ready", MODEL), 0.0, 0.0, 1)  # type: ignore[arg-type]
        self.redis.set(link.key("worker", self.id), link.dumps(info.to_wire()), ex=link.RECORD_SECONDS)
        self.redis.sadd(link.WORKERS, self.id)

    async def take(self, model: str = MODEL) -> dict[str, Any]:
        """The next request of the queue, as Celery's message carries it."""
        found: list[Any] = []

        async def arrived() -> bool:
            found[:] = [self.redis.rpop(link.queue_of(model))]
            return bool(found[0])

        await auntil(arrived, "a request arrives")
        message: dict[str, Any] = json.loads(base64.b64decode(json.loads(found[0])["body"]))[0][0]
        return message

    async def claim(self) -> dict[str, Any]:
        message = await self.take()
        assert self.leases.claim(message["attempt"], message["address"])
        return message

    def write(self, message: dict[str, Any], *events: Event) -> None:
        texts = ",".join(link.dumps(e.to_wire()) for e in events)
        self.redis.xadd(link.key("events", message["address"]), {"worker": self.id, "events": f"[{texts}]"})

    def orders(self) -> list[dict[str, Any]]:
        return [json.loads(f[b"order"]) for _, f in self.redis.xrange(link.key("control", self.id))]

    async def order(self, do: str) -> dict[str, Any]:
        async def came() -> bool:
            return any(o["do"] == do for o in self.orders())

        await auntil(came, f"the order to {do} comes")
        return [o for o in self.orders() if o["do"] == do][-1]


def events_of(message: dict[str, Any], tokens: int = 3) -> list[Event]:
    id = message["attempt"]
    written = [Token(id, n + 1, n, f"{n} ") for n in range(tokens)]
    end = Finished(id, tokens + 1, "length", Usage(3, tokens), Receipt(MODEL, "", 7), 0.1)
    return [Started(id, 0, 3, 7), *written, end]


async def test_what_comes_twice_is_heard_once(client: Inference, played: PlayedWorker) -> None:
    run = Following(client, long("a"))
    events = events_of(message := await played.claim())
    played.write(message, *events[:3])
    played.write(message, *events[1:4], *events[1:4])
    played.write(message, *events)
    await run.end()
    assert [e.id for e in run.events] == ["a"] * 5


async def test_what_is_missing_is_asked_for_again(client: Inference, played: PlayedWorker) -> None:
    run = Following(client, long("a"))
    events = events_of(message := await played.claim())
    played.write(message, events[0], *events[2:])
    order = await played.order("resend")
    assert (order["attempt"], order["address"], order["seq"]) == (message["attempt"], message["address"], 1)
    played.write(message, *events[1:])
    assert isinstance(await run.end(), Finished)


async def test_a_lost_end_is_asked_for_as_well(client: Inference, played: PlayedWorker) -> None:
    run = Following(client, long("a"))
    events = events_of(message := await played.claim())
    played.write(message, *events[:-1])
    assert (await played.order("resend"))["seq"] == 4
    played.write(message, events[-1])
    assert isinstance(await run.end(), Finished)


async def test_what_nobody_can_send_again_is_a_typed_error(client: Inference, played: PlayedWorker) -> None:
    run = Following(client, long("a"))
    events = events_of(message := await played.claim())
    played.write(message, events[0], *events[3:])
    end = await run.end()
    assert isinstance(end, Failed) and (end.seq, end.kind, end.code) == (1, "unavailable", "events_lost")
    assert (await played.order("cancel"))["attempt"] == message["attempt"]


async def test_a_request_that_nobody_takes_is_fenced_and_sent_once_more(
    client: Inference, played: PlayedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "TAKE_SECONDS", 1.0)
    run = Following(client, long("a"))
    first = await played.take()  # and loses it, as a worker killed in that moment does
    second = await played.claim()
    monkeypatch.setattr(hub, "TAKE_SECONDS", 60.0)
    assert second["attempt"] != first["attempt"] and second["request"] == first["request"]
    assert not played.leases.claim(first["attempt"], first["address"])
    played.write(first, *events_of(first, tokens=1))  # the dead speak, and are not heard
    played.write(second, *events_of(second, tokens=4))
    await run.end()
    assert len(run.events) == 6


async def test_a_request_that_nobody_takes_twice_is_a_typed_error(
    client: Inference, played: PlayedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "TAKE_SECONDS", 1.0)
    run = Following(client, long("a"))
    await played.take()
    await played.take()
    end = await run.end()
    assert isinstance(end, Failed) and (end.seq, end.kind, end.code) == (0, "unavailable", "worker_lost")


async def test_a_request_whose_worker_never_began_it_runs_elsewhere(client: Inference, played: PlayedWorker) -> None:
    run = Following(client, long("a"))
    first = await played.claim()
    await played.order("resend")
    odd = link.dumps([{"type": "unknown", "id": first["attempt"]}])
    played.redis.xadd(link.key("events", first["address"]), {"worker": played.id, "events": odd})
    second = await played.claim()
    assert played.leases.renew() == [first["attempt"]]  # should it begin after all
    played.write(second, *events_of(second))
    assert isinstance(await run.end(), Finished)


async def test_a_worker_of_another_version_is_left_out(client: Inference, played: PlayedWorker) -> None:
    for id, said in (("newer", '{"id": "newer", "surprise": 1}'), ("broken", "no JSON")):
        played.redis.set(link.key("worker", id), said, ex=link.RECORD_SECONDS)
        played.redis.sadd(link.WORKERS, id)
    assert [worker.id for worker in await client.workers()] == [played.id]
    assert (await client.describe()).state == "ready"


async def test_a_vector_that_cannot_be_kept_fails_its_job(
    client: Inference, played: PlayedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(store: VectorStore, data: bytes) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(VectorStore, "put", refuse)
    pairs = (Pair(" calm", " angry"), Pair(" kind", " rude"))
    job = Following(client, CreateVector("build", pairs))
    message = await played.claim()
    played.redis.set(link.key("vector", "f" * 64), b"a file")
    played.write(message, Result(message["attempt"], 0, {"vector": {"id": "f" * 64}}))
    end = await job.end()
    assert isinstance(end, Failed) and (end.code, end.kind) == ("vector_not_kept", "engine_fault")


async def test_a_vector_under_the_name_of_another_is_not_found(client: Inference, played: PlayedWorker) -> None:
    played.redis.set(link.key("vector", "f" * 64), file_of(make_vector()))
    with pytest.raises(NotFound):
        await client.get_vector("f" * 64)


async def test_a_stuck_engine_counts_as_lost(client: Inference, played: PlayedWorker) -> None:
    run = Following(client, long("a"))
    message = await played.claim()
    played.write(message, *events_of(message)[:2])
    await run.tokens(1)
    played.beat("lost")  # as a worker whose engine does not turn says of itself
    end = await run.end()
    assert isinstance(end, Failed) and (end.seq, end.code) == (2, "worker_lost")


async def test_a_cancel_reaches_the_worker_and_one_that_claims_later(client: Inference, played: PlayedWorker) -> None:
    begun, waiting = Following(client, long("begun")), None
    message = await played.claim()
    await client.cancel("begun")
    assert (await played.order("cancel"))["attempt"] == message["attempt"]
    waiting = Following(client, long("waiting"))
    later = await played.take()
    await client.cancel("waiting")
    assert played.leases.is_cancelled(later["attempt"])
    end = await waiting.end()  # nobody took it, so it ends here
    assert isinstance(end, Finished) and end.reason == "cancelled"
    begun.task.cancel()


async def test_what_cannot_be_read_is_a_typed_error(client: Inference, played: PlayedWorker) -> None:
    run = Following(client, long("a"))
    message = await played.claim()
    odd = link.dumps([{"type": "token", "id": message["attempt"], "seq": 0, "surprise": 1}])
    played.redis.xadd(link.key("events", message["address"]), {"worker": played.id, "events": odd})
    end = await run.end()
    assert isinstance(end, Failed) and end.code == "bad_event"


async def test_a_model_served_a_moment_ago_is_waited_for(client: Inference, played: PlayedWorker) -> None:
    assert (await client.describe(MODEL)).state == "ready"
    played.redis.flushall()
    run = Following(client, long("a"))
    await asyncio.sleep(0.1)
    played.beat()
    message = await played.claim()
    played.write(message, *events_of(message))
    assert isinstance(await run.end(), Finished)


async def test_closing_ends_what_is_open(client: Inference, played: PlayedWorker) -> None:
    run = Following(client, long("a"))
    message = await played.claim()
    await client.close()
    end = await run.end()
    assert isinstance(end, Failed) and end.code == "shutting_down"
    assert played.leases.is_cancelled(message["attempt"])


async def test_five_hundred_requests_share_the_connections(client: Inference, played: PlayedWorker) -> None:
    runs = [Following(client, long(f"r{i}")) for i in range(500)]
    messages = [await played.claim() for _ in runs]
    assert len(played.redis.client_list()) < 40
    for message in messages:
        played.write(message, *events_of(message))
    await asyncio.gather(*(run.end() for run in runs))
    assert all(len(run.events) == 5 for run in runs)


def test_a_claim_is_for_one_worker_and_ends_when_it_is_fenced(server: RedisServer, played: PlayedWorker) -> None:
    other = PlayedWorker(server, "played-2")
    played.redis.set(link.key("reader", "web"), 1)
    assert played.leases.claim("x", "web") and not other.leases.claim("x", "web")
    assert played.leases.renew() == []
    played.redis.set(link.key("claim", "x"), link.FENCED)
    assert played.leases.renew() == ["x"]


def test_what_nobody_reads_any_more_is_to_end(
    server: RedisServer, played: PlayedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "READER_SECONDS", 0.2)
    assert played.leases.claim("x", "gone")
    assert played.leases.renew() == []
    time.sleep(0.3)
    assert played.leases.renew() == ["x"]


def test_the_outbox_sends_again_after_redis_lost_everything(server: RedisServer, played: PlayedWorker) -> None:
    outbox = Outbox(server.url, "w")
    events = events_of({"attempt": "x"}, tokens=2)

    def arrived() -> list[int]:
        entries = played.redis.xrange(link.key("events", "web"))
        return [e["seq"] for _, fields in entries for e in json.loads(fields[b"events"])]

    def wait_for(seqs: list[int]) -> None:
        until(lambda: arrived() == seqs)

    for event in events:
        outbox.send("web", event)
    wait_for([0, 1, 2, 3])
    played.redis.flushall()
    outbox.resend("web", "x", 2)
    wait_for([2, 3])
    outbox.close()


async def test_an_engine_that_hangs_fails_its_runs_and_is_left_out(
    client: Inference,
    played: PlayedWorker,
    server: RedisServer,
    tiny_folder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "STUCK_SECONDS", 1.0)
    queues: list[str] = []
    model = str(tiny_folder("llama"))
    node = Node(
        server.url,
        model,
        name="real",
        data_dir=tmp_path,
        dtype="float64",
        consume=queues.append,
        put_back=lambda message: None,
    )
    name = Path(model).name
    release = threading.Event()
    try:
        await auntil(lambda: is_ready(client, name), "the model is loaded")
        assert node.host.engine
        node.host.engine.batch.step = lambda: release.wait() and []  # type: ignore[method-assign]
        run = Following(client, replace(long("hangs", 50), model=name))
        node.serve(await played.take(name))
        end = await run.end()
        assert isinstance(end, Failed) and (end.kind, end.code) == ("unavailable", "worker_lost")
        await auntil(lambda: nothing(queues[-1]), "it leaves its queue")
        assert (await client.describe(name)).state == "failed"
    finally:
        release.set()
        await asyncio.to_thread(node.close, 0.0)


async def is_ready(client: Inference, model: str) -> bool:
    return (await client.describe(model)).state == "ready"


async def nothing(queue: str) -> bool:
    return not queue


def test_an_engine_that_has_work_and_does_not_turn_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    class Engine:
        busy, turns, state = True, 1, "ready"

    now, engine, pulse = [100.0], Engine(), Pulse()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def after(seconds: float) -> float:
        now[0] += seconds
        return pulse.stuck(engine)  # type: ignore[arg-type]

    assert after(1) == 0
    assert after(8) == 8
    engine.turns = 2
    assert after(8) == 0
    engine.busy = False
    assert after(60) == 0
    engine.busy = True  # work that has just come, after a long rest
    assert after(1) < 2
