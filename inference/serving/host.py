"""One engine that can be exchanged while it serves: load, unload, drain, resume.

What runs when a model goes is given time to finish; meanwhile new work is refused with a time to come back.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import queue
import resource
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from inference.companions import Companions
from inference.engine import Emit, Engine, Limits
from inference.models.loader import LoadedModel, id_of, load
from inference.prepare import Prepared
from inference.saes.sources import Sources
from inference.serving.refusals import check_command, draining, not_served, nothing_loaded
from inference.store import Vectors
from inference.types import TERMINAL, Command, EngineKind, Event, GenerationRequest, JobRequest, ModelInfo, WorkerState

log = logging.getLogger(__name__)

DRAIN_SECONDS = 30.0
YOUNG_OBJECTS = 10_000  # that are made before the garbage collector looks at them; Python's 700 are one step's


@dataclass(frozen=True, eq=False)
class Start:
    """A request that was checked for an engine, and where its events are to go."""

    engine: Engine
    prepared: Prepared
    emit: Emit


class ModelHost:
    """Holds at most one engine. May be used from any thread; commands are carried out in order by one of its own."""

    def __init__(
        self,
        name: str,
        *,
        vectors: Vectors,
        cache_dir: Path,
        dtype: str = "auto",
        limits: Limits = Limits(),
        sources: Sources | None = None,
        companions: Sequence[str] = (),
        engine: EngineKind = "built-in",
        drain_seconds: float = DRAIN_SECONDS,
    ):
        self._vectors, self._cache_dir, self._dtype, self._limits = vectors, cache_dir, dtype, limits
        self._sources = sources or Sources()
        self._companions = Companions(companions, cache_dir=cache_dir)
        self._kind: EngineKind = engine
        self._drain_seconds = drain_seconds
        self._changed = threading.Condition()  # guards the three below
        self._open = 0  # requests that have not ended
        self._draining = False
        self._engine: Engine | None = self._start(name) if name else None
        self._commands: queue.SimpleQueue[tuple[Command, str] | None] = queue.SimpleQueue()
        threading.Thread(target=self._obey, name="host", daemon=True).start()

    @property
    def engine(self) -> Engine | None:
        return self._engine

    @property
    def state(self) -> WorkerState:
        with self._changed:
            engine, draining = self._engine, self._draining
        if draining:
            return "draining"
        return engine.state if engine else "empty"

    def describe(self) -> ModelInfo | None:
        engine = self._engine
        return engine.describe() if engine else None

    def submit(self, request: GenerationRequest | JobRequest, emit: Emit) -> None:
        """Check a request and hand it to the engine; its events go to `emit`. Raises InferenceError."""
        if isinstance(request, GenerationRequest):
            return self.start([self.prepare(request, emit)])
        with self._entered(request.model) as engine:
            engine.start_job(request, self._watched(emit))

    def prepare(self, request: GenerationRequest, emit: Emit) -> Start:
        """Check a request, which is then to be given to `start`. Raises InferenceError."""
        with self._entered(request.model) as engine:
            return Start(engine, engine.prepare(request), self._watched(emit))

    def start(self, starts: Iterable[Start]) -> None:
        """Hand over what is prepared; what comes together is read together."""
        by_engine: dict[Engine, list[tuple[Prepared, Emit]]] = {}
        for each in starts:
            by_engine.setdefault(each.engine, []).append((each.prepared, each.emit))
        for engine, together in by_engine.items():
            engine.start_together(together)

    def cancel(self, id: str) -> None:
        if engine := self._engine:
            engine.cancel(id)

    def finish(self, id: str) -> None:
        if engine := self._engine:
            engine.finish(id)

    def control(self, command: Command, model: str = "") -> None:
        """Queue a command; see `Inference.control`. Raises InvalidRequest."""
        check_command(command, model)
        self._commands.put((command, model))

    def refuse_new(self) -> None:
        """Begin to drain, at once."""
        self._set_draining(True)

    def close(self, drain_seconds: float = 0.0) -> None:
        """End, after what runs has had `drain_seconds` to finish."""
        self._commands.put(None)
        self._retire(drain_seconds)

    # ---- requests that are open ----

    @contextmanager
    def _entered(self, model: str) -> Iterator[Engine]:
        """The engine for one more open request, which is none where this raises."""
        with self._changed:
            engine = self._engine
            if self._draining:
                raise draining()
            if engine is None:
                raise nothing_loaded()
            served = engine.model_id
            if model not in ("", served):
                raise not_served(model, (served,))
            self._open += 1
        try:
            yield engine
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def _watched(self, emit: Emit) -> Emit:
        def watched(event: Event) -> None:
            emit(event)
            if isinstance(event, TERMINAL):
                self._leave()

        return watched

    def _set_draining(self, draining: bool) -> None:
        with self._changed:
            self._draining = draining

    # ---- commands ----

    def _obey(self) -> None:
        while item := self._commands.get():
            command, model = item
            log.info("%s %s", command, model)
            if command in ("drain", "resume"):
                self._set_draining(command == "drain")
                continue
            try:
                self._exchange(model if command == "load" else "")
            except Exception:
                log.exception("%s %s failed; commands are still taken", command, model)

    def _exchange(self, model: str) -> None:
        """End the engine, then start another one where a model is named. No engine is left where that fails."""
        try:
            self._retire(self._drain_seconds)
            with self._changed:
                self._engine = self._start(model) if model else None
        finally:
            self._set_draining(False)

    def _loaded(self, name: str) -> LoadedModel:
        model = load(name, cache_dir=self._cache_dir, dtype=self._dtype)
        leave_alone_what_stays()
        return model

    def _start(self, name: str) -> Engine:
        cache, dtype = self._cache_dir, self._dtype
        if self._kind == "vllm":
            from inference.vllm.engine import VllmEngine  # here alone, where vLLM is installed

            return VllmEngine(name, self._vectors, id=id_of(name), cache_dir=cache, dtype=dtype, limits=self._limits)
        return Engine(
            lambda: self._loaded(name),
            self._vectors,
            name=id_of(name),
            limits=self._limits,
            sources=self._sources,
            companions=self._companions,
        )

    def _retire(self, seconds: float) -> None:
        """Refuse the new, let what runs finish, end the engine and give its memory back."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._draining = True
            self._changed.wait_for(lambda: not self._open, max(0.0, deadline - time.monotonic()))
            engine = self._engine
        if engine:
            engine.close()
        with self._changed:
            self._engine = None
        del engine
        self._sources.clear()
        self._companions.clear()
        free_memory()


def leave_alone_what_stays() -> None:
    """Keep the garbage collector from looking through libraries and model again: that stops every stream for 0.3 s."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


def free_memory() -> None:
    """Hand what a model held back to the system, which Python and the C library otherwise keep for themselves."""
    gc.unfreeze()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        log.debug("this C library has no malloc_trim")


def memory_bytes() -> int:
    """What this process holds: resident memory, and device memory where there is a device."""
    try:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux: the largest it ever was
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident + (torch.cuda.memory_reserved() if torch.cuda.is_available() else 0)
