"""The engine with vLLM's passes. Events, text, sampling, receipts and seeds are the built-in engine's own.

What vLLM leaves to others, jobs that read a model from within, runs on a copy of the weights in transformers' modules,
which is loaded when the first such job comes.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from inference.batch import Batch
from inference.engine import Emit, Engine, Limits
from inference.errors import EngineFault
from inference.models.loader import LoadedModel
from inference.prepare import Prepared
from inference.store import Vectors
from inference.types import GenerationRequest, JobRequest, ModelInfo, Started, Tokenize
from inference.vllm.batch import VllmBatch
from inference.vllm.model import VllmModel, load_copy, load_vllm
from inference.vllm.refusals import check_job, check_request

log = logging.getLogger(__name__)


class VllmEngine(Engine):
    batch: VllmBatch
    _model: VllmModel | None

    def __init__(self, name: str, vectors: Vectors, *, id: str, cache_dir: Path, dtype: str, limits: Limits = Limits()):
        self._cache_dir = cache_dir
        self._copy: LoadedModel | None = None
        self._copying = threading.Lock()

        def load() -> LoadedModel:
            return load_vllm(name, cache_dir=cache_dir, dtype=dtype, limits=limits)

        super().__init__(load, vectors, name=id, limits=limits)

    # ---- called from any thread ----

    def prepare(self, request: GenerationRequest) -> Prepared:
        check_request(request)
        return super().prepare(request)

    def start_job(self, request: JobRequest, emit: Emit) -> None:
        check_job(request)
        if not isinstance(request, Tokenize):  # which needs no weights
            self._load_copy()
        super().start_job(request, emit)

    def describe(self) -> ModelInfo:
        info, model = super().describe(), self._model
        return replace(info, engine=f"vLLM {model.core.version}" if model else "vLLM")

    @property
    def job_model(self) -> LoadedModel:
        return self._copy or self.batch.model

    def _load_copy(self) -> None:
        """On the caller's thread, so that no token waits for it."""
        model = self._ready_model()
        assert isinstance(model, VllmModel)
        with self._copying:
            if self._copy is None:
                self._copy = load_copy(model, self._cache_dir)

    # ---- the engine's own thread ----

    def _new_batch(self, model: LoadedModel) -> Batch:
        assert isinstance(model, VllmModel)
        if hasattr(self, "batch"):
            try:
                self.batch.discard()
            except Exception:
                log.exception("vLLM could not be brought back")
                self._problem = EngineFault(
                    "engine_broken", "vLLM failed and cannot go on. Load the model again, or start the worker again."
                )
        return VllmBatch(model)

    def _room(self, model: LoadedModel) -> int:
        assert isinstance(model, VllmModel)
        return model.core.pages * model.core.page

    def _admit(self) -> None:
        """Hand over all that the batch has room for; vLLM decides how much of their prompts a pass reads."""
        while self._waiting and len(self._running) < self.limits.max_rows:
            row = self._waiting[0].prepared.row
            if not self.batch.has_room(row):
                break
            run = self._waiting.popleft()
            self._running[row] = run
            run.send(Started, prompt_tokens=row.prompt_length, seed=run.prepared.seed)
            self.batch.join([row])

    def _run(self) -> None:
        try:
            super()._run()
        finally:
            if self._model:
                with suppress(Exception):
                    self._model.core.close()
