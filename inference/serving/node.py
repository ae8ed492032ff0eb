"""What a worker is apart from Celery: one engine, its leases, its outbox, a heartbeat, and an ear for orders."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference.engine import Engine
from inference.errors import EngineFault, InferenceError
from inference.logs import cause
from inference.saes.settings import sources_from
from inference.serving import link
from inference.serving.host import DRAIN_SECONDS, ModelHost, memory_bytes
from inference.serving.leases import Leases
from inference.serving.outbox import Outbox
from inference.serving.refusals import REVISION_SECONDS, other_revision
from inference.serving.vectors import RedisVectors
from inference.types import (
    JOB_REQUESTS,
    TERMINAL,
    EngineKind,
    Event,
    Failed,
    GenerationRequest,
    JobRequest,
    ModelInfo,
    WorkerInfo,
)

log = logging.getLogger(__name__)

MAX_CAUSE = 40  # characters of the id of the request that a piece of work is for
REQUESTS: dict[str, type[GenerationRequest | JobRequest]] = {
    "generate": GenerationRequest,
    **JOB_REQUESTS,
}


class Node:
    """`consume` is told the queue to take requests from, or "" for none, at least whenever that changes.

    `put_back` returns a request that arrived when it could not be taken to its queue, for another worker.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        name: str,
        data_dir: Path,
        dtype: str,
        companions: Sequence[str] = (),
        engine: EngineKind = "built-in",
        consume: Callable[[str], None],
        put_back: Callable[[dict[str, Any]], None],
    ):
        self.id = f"{plain(name or socket.gethostname())}-{secrets.token_hex(3)}"
        self._url, self._consume, self._put_back = url, consume, put_back
        self._redis = link.open_sync(url)
        self._vectors = RedisVectors(self._redis, url)
        self._outbox = Outbox(url, self.id)
        self._leases = Leases(self._redis, self.id)
        self.host = ModelHost(
            model,
            vectors=self._vectors,
            cache_dir=data_dir / "models",
            dtype=dtype,
            sources=sources_from(data_dir),
            companions=companions,
            engine=engine,
        )
        self._pulse = Pulse()
        self._started = time.time()
        self._wake = threading.Event()
        self._ended = False
        self._said = ""
        self._rival = ""  # the revision that others serve under the id of our model, where it is another one
        self._threads = [
            threading.Thread(target=target, name=target.__name__.strip("_"), daemon=True)
            for target in (self._beat, self._listen)
        ]
        for thread in self._threads:
            thread.start()

    # ---- a request ----

    def serve(self, message: dict[str, Any]) -> None:
        """Take one request from a queue: claim it, check it, hand it to the engine. Returns at once."""
        cause.set(str(message.get("cause", "-"))[:MAX_CAUSE])
        attempt, address, model = message["attempt"], message["address"], message["request"]["model"]
        engine = self.host.engine
        if self.host.state != "ready" or self._rival or not engine or engine.model_id != model:
            time.sleep(0.1)  # while the queue is being left, it must not spin
            self._put_back(message)
            return
        if not self._leases.claim(attempt, address):
            log.info("attempt %s is not ours to take", attempt)
            return
        self._outbox.begin(attempt)
        about = {"kind": message["kind"], "model": model, "attempt": attempt, "work": message["request"]["id"]}
        log.info("took %s %s", message["kind"], about["work"], extra={"facts": about})
        try:
            request = REQUESTS[message["kind"]].from_wire(message["request"])
            self.host.submit(replace(request, id=attempt), lambda event: self._emit(address, event))
            if self._leases.is_cancelled(attempt):
                self.host.cancel(attempt)
        except InferenceError as error:
            self._refuse(attempt, address, error)
        except link.ERRORS:
            log.warning("Redis went away while attempt %s began; the heartbeat will look for a cancel", attempt)
        except Exception as error:
            log.exception("attempt %s could not begin", attempt)
            self._refuse(attempt, address, EngineFault("engine_fault", f"The request could not begin: {error}."))

    def _refuse(self, attempt: str, address: str, error: InferenceError) -> None:
        self._emit(address, Failed(attempt, 0, error.kind, error.code, error.message, error.retry_after))

    def _emit(self, address: str, event: Event) -> None:
        self._outbox.send(address, event, self._vectors_of(event))
        if isinstance(event, TERMINAL):
            self._leases.release(event.id)

    def _vectors_of(self, event: Event) -> dict[str, bytes]:
        """What an event names that its listener has to have, by id."""
        found = {id: self._vectors.data(id) for id in link.vectors_in(event)}
        return {id: data for id, data in found.items() if data}

    # ---- heartbeat ----

    def _beat(self) -> None:
        last_reached = time.monotonic()
        while not self._ended:
            try:
                self._announce()
                for attempt in self._leases.renew():
                    self.host.cancel(attempt)
                last_reached = time.monotonic()
            except link.ERRORS as error:
                if time.monotonic() - last_reached > link.OUTAGE_SECONDS + link.LOST_SECONDS:
                    self._give_up_readers(error)
            except Exception:
                log.exception("a heartbeat failed")
            self._rest()

    def _rest(self) -> None:
        """Until the next heartbeat, or until there is something new to say."""
        state, until = self.host.state, time.monotonic() + link.BEAT_SECONDS
        while time.monotonic() < until and self.host.state == state and not self._wake.wait(0.1):
            pass
        self._wake.clear()

    def _announce(self) -> None:
        self._rival = self._find_rival()
        info = self.info()
        self._consume(link.queue_of(info.model.id) if info.state == "ready" and info.model else "")
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(link.key("worker", self.id), link.dumps(info.to_wire()), ex=link.RECORD_SECONDS)
        pipe.sadd(link.WORKERS, self.id)
        pipe.execute()
        said = f"{info.state} {info.model.id if info.model else ''}"
        if said != self._said:
            self._said = said
            log.info("worker %s: %s %s", self.id, said, info.model.problem if info.model else "")

    def _find_rival(self) -> str:
        """Take or renew the right to serve our revision under its model's id. Empty, or the revision that has it."""
        model = self.host.describe()
        if not model or model.state != "ready":
            return ""
        name, mine = link.key("revision", model.id), answering(model)
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(name, mine, nx=True, ex=REVISION_SECONDS)
        pipe.get(name)
        *_, served = pipe.execute()
        if served is None or served.decode() == mine:
            self._redis.expire(name, REVISION_SECONDS)
            return ""
        return str(served.decode())

    def info(self) -> WorkerInfo:
        state, model = self.host.state, self.host.describe()
        if self._rival and model and state == "ready":
            problem = other_revision(model.id, answering(model), self._rival).message
            state, model = "failed", replace(model, state="failed", problem=problem)
        if self._pulse.stuck(self.host.engine) > link.STUCK_SECONDS:
            state = "lost"
        return WorkerInfo(self.id, socket.gethostname(), os.getpid(), state, model, self._started, 0.0, memory_bytes())

    def _give_up_readers(self, error: Exception) -> None:
        """Without Redis for so long, those who asked have been told that it failed."""
        for attempt in self._leases.all():
            log.warning("attempt %s ends, as Redis does not come back: %s", attempt, error)
            self.host.cancel(attempt)

    # ---- orders ----

    def _listen(self) -> None:
        connection, last, delay = link.open_sync(self._url), "0-0", 0.05
        stream = link.key("control", self.id)
        while not self._ended:
            try:
                reply: Any = connection.xread({stream: last}, block=1000, count=100)
                for entry, fields in reply[0][1] if reply else ():
                    last = entry
                    self._obey(json.loads(fields[b"order"]))
                delay = 0.05
            except link.ERRORS:
                time.sleep(delay)
                delay = min(1.0, delay * 2)
            except Exception:
                log.exception("an order could not be carried out")

    def _obey(self, order: dict[str, Any]) -> None:
        if order["do"] == "cancel":
            self.host.cancel(order["attempt"])
        elif order["do"] == "finish":
            self.host.finish(order["attempt"])
        elif order["do"] == "resend":
            self._outbox.resend(order["address"], order["attempt"], order["seq"])
        elif order["do"] == "command":
            self.host.control(order["command"], order["model"])
            self._wake.set()

    # ---- the end ----

    def refuse_new(self) -> None:
        """Begin to drain, and say so at once."""
        self.host.refuse_new()
        self._wake.set()

    def close(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Finish what runs, deliver it, and take leave."""
        self.refuse_new()
        self.host.close(drain_seconds)
        self._outbox.close()
        self._ended = True
        self._wake.set()
        for thread in self._threads:
            thread.join(5)
        try:
            self._redis.delete(link.key("worker", self.id), link.key("control", self.id))
            self._redis.srem(link.WORKERS, self.id)
        except link.ERRORS:
            log.info("Redis is gone already")


def answering(model: ModelInfo) -> str:
    """What has to be the same in all who share a queue: the weights, and an engine that can do as much."""
    return model.revision if model.engine == "built-in" else f"{model.revision} with {model.engine}"


def plain(name: str) -> str:
    """A name that can stand in an address: letters, digits, points, dashes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:60].strip("-") or "worker"


class Pulse:
    """How long the engine's loop has had work and not turned, as far as one who looks every second can tell."""

    def __init__(self) -> None:
        self._turns = -1
        self._since = time.monotonic()

    def stuck(self, engine: Engine | None) -> float:
        now = time.monotonic()
        if engine is None or not engine.busy or engine.turns != self._turns or engine.state != "ready":
            self._turns = engine.turns if engine else -1
            self._since = now
        return now - self._since
