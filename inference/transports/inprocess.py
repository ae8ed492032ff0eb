"""The engine as a thread of this process; events cross into the caller's event loop one by one, in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from inference.engine import Engine, Limits
from inference.errors import InferenceError
from inference.models.loader import load
from inference.store import VectorStore
from inference.types import TERMINAL, Event, Failed, GenerationRequest, JobRequest, ModelInfo, SteeringVector


class InProcess:
    """`inference.client.Inference` over an engine that loads `name` in the background. May be used from many loops."""

    def __init__(self, name: str, *, data_dir: Path, dtype: str = "float32", limits: Limits = Limits()):
        self.vectors = VectorStore(data_dir / "vectors")
        cache = data_dir / "models"
        self.engine = Engine(lambda: load(name, cache_dir=cache, dtype=dtype), self.vectors, name=name, limits=limits)

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        try:
            prepared = await asyncio.to_thread(self.engine.prepare, request)
        except InferenceError as error:
            yield _failed(request.id, error)
            return
        async for event in self._events(request.id, lambda emit: self.engine.start(prepared, emit)):
            yield event

    async def run(self, job: JobRequest) -> AsyncIterator[Event]:
        try:
            async for event in self._events(job.id, lambda emit: self.engine.start_job(job, emit)):
                yield event
        except InferenceError as error:
            yield _failed(job.id, error)

    async def _events(self, id: str, start: Callable[[Callable[[Event], None]], None]) -> AsyncIterator[Event]:
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[Event] = asyncio.Queue()

        def emit(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the listener's loop is gone, and the listener with it
                loop.call_soon_threadsafe(inbox.put_nowait, event)

        start(emit)
        ended = False
        try:
            while not ended:
                event = await inbox.get()
                ended = isinstance(event, TERMINAL)
                yield event
        finally:
            if not ended:  # a late cancel could hit the next run of the same id
                self.engine.cancel(id)

    async def describe(self) -> ModelInfo:
        return self.engine.describe()

    async def cancel(self, id: str) -> None:
        self.engine.cancel(id)

    async def put_vector(self, data: bytes) -> SteeringVector:
        return await asyncio.to_thread(self.vectors.put, data)

    async def get_vector(self, vector_id: str) -> bytes:
        return await asyncio.to_thread(self.vectors.read, vector_id)

    async def close(self) -> None:
        await asyncio.to_thread(self.engine.close)


def _failed(id: str, error: InferenceError) -> Failed:
    return Failed(id, 0, error.kind, error.code, error.message, error.retry_after)
