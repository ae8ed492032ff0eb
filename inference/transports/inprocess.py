"""The engine as a thread of this process; events cross into the caller's event loop one by one, in order."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from weakref import WeakKeyDictionary

from inference.companions import names_from
from inference.engine import Emit, Engine, Limits
from inference.errors import InferenceError
from inference.prepare import characters_of
from inference.saes.settings import sources_from
from inference.serving.host import ModelHost, memory_bytes
from inference.serving.refusals import as_served, check_command, pick, worker_not_found
from inference.store import VectorStore
from inference.transports.courier import Courier
from inference.types import (
    TERMINAL,
    Command,
    EngineKind,
    Event,
    Failed,
    GenerationRequest,
    JobRequest,
    ModelInfo,
    SteeringVector,
    WorkerInfo,
)

WORKER_ID = "inprocess"
QUICK_LENGTH = 2_000  # characters or tokens of a prompt
QUICK_MESSAGES = 8


def _quick(request: GenerationRequest) -> bool:
    """Whether to check and tokenise it takes less time than to wake a thread that does: nothing is read from a disk."""
    if request.interventions or request.watches or request.tools:
        return False
    if request.constraint or request.draft or request.ensemble:
        return False
    if len(request.messages or ()) > QUICK_MESSAGES:
        return False
    return characters_of(request) + len(request.token_ids or ()) <= QUICK_LENGTH


class InProcess:
    """`inference.client.Inference` over an engine that loads `name` in the background. May be used from many loops."""

    def __init__(
        self,
        name: str,
        *,
        data_dir: Path,
        dtype: str = "auto",
        limits: Limits = Limits(),
        engine: EngineKind = "built-in",
    ):
        self.vectors = VectorStore(data_dir / "vectors")
        self.host = ModelHost(
            name,
            vectors=self.vectors,
            cache_dir=data_dir / "models",
            dtype=dtype,
            limits=limits,
            sources=sources_from(data_dir),
            companions=names_from(),
            engine=engine,
        )
        self._started = time.time()
        self._couriers: WeakKeyDictionary[asyncio.AbstractEventLoop, Courier] = WeakKeyDictionary()

    def _courier_to(self, loop: asyncio.AbstractEventLoop) -> Courier:
        courier = self._couriers.get(loop)
        if courier is None:
            courier = self._couriers[loop] = Courier(loop, self.host)
        return courier

    @property
    def engine(self) -> Engine:
        assert self.host.engine, "no model is loaded"
        return self.host.engine

    def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        return self._events(request)

    def run(self, job: JobRequest) -> AsyncIterator[Event]:
        return self._events(job)

    async def _events(self, request: GenerationRequest | JobRequest) -> AsyncIterator[Event]:
        courier = self._courier_to(asyncio.get_running_loop())
        inbox: asyncio.Queue[Event] = asyncio.Queue()

        def emit(event: Event) -> None:
            courier.carry(inbox, event)

        ended = False
        try:
            if isinstance(request, GenerationRequest) and _quick(request):
                courier.start(self.host.prepare(request, emit))
            else:
                await self._submit_aside(request, emit)
            while not ended:
                event = await inbox.get()
                ended = isinstance(event, TERMINAL)
                yield event
        except InferenceError as error:
            ended = True
            yield Failed(request.id, 0, error.kind, error.code, error.message, error.retry_after)
        finally:
            if not ended:  # a late cancel could hit the next run of the same id
                self._cancel(request.id)

    async def _submit_aside(self, request: GenerationRequest | JobRequest, emit: Emit) -> None:
        """In a thread, which goes on where the caller leaves meanwhile: what it has begun is then cancelled."""
        submitting = asyncio.ensure_future(asyncio.to_thread(self.host.submit, request, emit))
        try:
            await asyncio.shield(submitting)
        except asyncio.CancelledError:
            submitting.add_done_callback(lambda _: self.host.cancel(request.id))
            raise

    async def describe(self, model: str = "") -> ModelInfo:
        return pick(await self.models(), model)

    async def models(self) -> tuple[ModelInfo, ...]:
        info = as_served(self.host.state, self.host.describe())
        return (info,) if info else ()

    async def workers(self) -> tuple[WorkerInfo, ...]:
        info, state = self.host.describe(), self.host.state
        host, pid = socket.gethostname(), os.getpid()
        return (WorkerInfo(WORKER_ID, host, pid, state, info, self._started, 0.0, memory_bytes()),)

    async def control(self, worker_id: str, command: Command, model: str = "") -> None:
        if worker_id != WORKER_ID:
            raise worker_not_found(worker_id)
        check_command(command, model)
        self.host.control(command, model)

    async def cancel(self, id: str) -> None:
        self._cancel(id)

    def _cancel(self, id: str) -> None:
        """On a loop. Its start goes first: the engine would not know whom to stop."""
        self._courier_to(asyncio.get_running_loop()).hand_over()
        self.host.cancel(id)

    async def finish(self, id: str) -> None:
        self.host.finish(id)

    async def put_vector(self, data: bytes) -> SteeringVector:
        return await asyncio.to_thread(self.vectors.put, data)

    async def get_vector(self, vector_id: str) -> bytes:
        return await asyncio.to_thread(self.vectors.read, vector_id)

    async def close(self) -> None:
        await asyncio.to_thread(self.host.close)
