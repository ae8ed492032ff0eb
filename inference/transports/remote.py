"""Engines in other processes, reached through Redis; see `inference.serving.link` for what lies where.

All traffic with Redis runs on one event loop in a thread of this process (`Hub`), so that callers may use any loop. One
stream carries the events of all its requests: 500 open requests cost no more connections than one.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from inference.errors import InferenceError, NotFound
from inference.serving import link
from inference.serving.refusals import check_command, pick, worker_not_found
from inference.store import VectorStore
from inference.transports.attempts import Attempt
from inference.transports.hub import Hub
from inference.transports.roster import merged, no_worker
from inference.types import (
    TERMINAL,
    Command,
    Event,
    GenerationRequest,
    JobRequest,
    ModelInfo,
    SteeringVector,
    WorkerInfo,
)

T = TypeVar("T")


class Remote:
    """`inference.client.Inference` over Redis and `inference.worker`. May be used from many loops."""

    def __init__(self, url: str, *, data_dir: Path):
        self._url = link.check_url(url)
        self.vectors = VectorStore(data_dir / "vectors")
        self._hub: Hub | None = None
        self._opening = threading.Lock()

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        async for event in self._events(request):
            yield event

    async def run(self, job: JobRequest) -> AsyncIterator[Event]:
        async for event in self._events(job):
            yield event

    async def _events(self, request: GenerationRequest | JobRequest) -> AsyncIterator[Event]:
        hub = self._opened()
        inbox: asyncio.Queue[Event] = asyncio.Queue()
        attempt = Attempt(request, asyncio.get_running_loop(), inbox)
        hub.spawn(hub.begin(attempt))
        ended = False
        try:
            while not ended:
                event = await inbox.get()
                ended = isinstance(event, TERMINAL)
                yield event
        finally:
            if not ended:
                hub.spawn(hub.abandon(attempt))

    async def describe(self, model: str = "") -> ModelInfo:
        try:
            workers = await self.workers()
            if all(worker.state == "lost" for worker in workers):
                raise no_worker()
            return pick(merged(workers), model)
        except InferenceError as error:
            return ModelInfo("failed", id=model, problem=error.message)

    async def models(self) -> tuple[ModelInfo, ...]:
        return merged(await self.workers())

    async def workers(self) -> tuple[WorkerInfo, ...]:
        hub = self._opened()
        return await self._on(hub, hub.workers())

    async def control(self, worker_id: str, command: Command, model: str = "") -> None:
        check_command(command, model)
        if not any(w.id == worker_id and w.state != "lost" for w in await self.workers()):
            raise worker_not_found(worker_id)
        hub = self._opened()
        await self._on(hub, hub.order(worker_id, {"do": "command", "command": command, "model": model}))

    async def cancel(self, id: str) -> None:
        hub = self._opened()
        await self._on(hub, hub.cancel(id))

    async def finish(self, id: str) -> None:
        hub = self._opened()
        await self._on(hub, hub.finish(id))

    async def put_vector(self, data: bytes) -> SteeringVector:
        vector = await asyncio.to_thread(self.vectors.put, data)
        with contextlib.suppress(InferenceError):  # it is safe here, and goes to Redis again before its first use
            hub = self._opened()
            await self._on(hub, hub.share(vector.id, data))
        return vector

    async def get_vector(self, vector_id: str) -> bytes:
        try:
            return await asyncio.to_thread(self.vectors.read, vector_id)
        except NotFound:
            hub = self._opened()
            data = await self._on(hub, hub.fetch(vector_id))
            if data is None:
                raise
            vector = await asyncio.to_thread(self.vectors.put, data)
            if vector.id != vector_id:  # it lay there under a name that is not its own
                raise
            return data

    async def close(self) -> None:
        with self._opening:
            hub, self._hub = self._hub, None
        if hub:
            await asyncio.to_thread(hub.close)

    def _opened(self) -> Hub:
        """Opened by the first use, so that a process may fork before it."""
        with self._opening:
            if self._hub is None:
                self._hub = Hub(self._url, self.vectors)
            return self._hub

    @staticmethod
    async def _on(hub: Hub, coroutine: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(hub.spawn(coroutine))
