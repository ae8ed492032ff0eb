"""An inference client without a model, for tests of pages: 20 words per completion, five steps per job."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator

from inference.errors import NotFound
from inference.serving.refusals import check_command, not_served, nothing_loaded, pick, worker_not_found
from inference.types import (
    AppliedIntervention,
    Command,
    Divergence,
    Event,
    Failed,
    Finished,
    Fired,
    Firing,
    GenerationRequest,
    JobRequest,
    ModelInfo,
    Progress,
    PromptRead,
    PromptToken,
    Receipt,
    Result,
    Score,
    Scored,
    ScoreItem,
    SourceInfo,
    Started,
    SteeringVector,
    Token,
    Usage,
    WorkerInfo,
    WorkerState,
)

TEXT = "the quick brown fox jumps over one lazy dog while seven calm cats watch the river run out to sea"
WORDS = TEXT.split()
SEED = 1729
MODEL = "SmolLM2-135M-Instruct"


def _scored(item: ScoreItem) -> dict[str, object]:
    """A nat per word, and half a nat more per word where it is upper case, as steered words are."""
    words = [text.split() or [""] for text in item.continuations]
    each = [[-1.5 if word.isupper() else -1.0 for word in some] for some in words]
    return {"logprobs": [sum(values) for values in each], "tokens": [len(values) for values in each], "each": each}


def prompt_tokens(request: GenerationRequest) -> tuple[PromptToken, ...]:
    """A token per word with the space before it, the same id for the same word."""
    text = request.prompt if request.prompt is not None else "".join(m.content for m in request.messages or ())
    words = re.findall(r"\s*\S+|\s+$", text)
    return tuple(PromptToken(zlib.crc32(word.encode()) % 40_000, word, None) for word in words)


class FakeInference:
    """Implements `inference.client.Inference`. Steered words are upper case, so that a page shows the difference."""

    def __init__(self, *, delay: float = 0.01, payload: dict[str, object] | None = None):
        self.delay = delay
        self.payload = payload or {}
        self.facts: dict[str, object] = {}
        self.vectors: dict[str, bytes] = {}
        self.requests: list[GenerationRequest] = []
        self.jobs: list[JobRequest] = []
        self.cancelled: set[str] = set()
        self.finished: set[str] = set()
        self.rows = 0
        self.state = "ready"
        self.loaded = {"fake": MODEL}  # by worker
        self.draining: set[str] = set()
        self.commands: list[tuple[str, Command, str]] = []
        self.fires: dict[str, tuple[int, ...]] = {}  # by name of watch, the positions at which it fires
        self.sources: tuple[SourceInfo, ...] = ()
        self.payloads: dict[str, dict[str, object]] = {}  # by kind of job, before `payload`

    def served(self, id: str, revision: str = "fake") -> ModelInfo:
        return ModelInfo(
            self.state,  # type: ignore[arg-type]
            id=id,
            revision=revision,
            architecture="LlamaForCausalLM",
            n_layers=30,
            d_model=576,
            vocab_size=49152,
            context_length=2048,
            dtype="float32",
            device="cpu",
            has_chat_template=True,
            load_seconds=1.9,
            rows=self.rows,
            max_rows=64,
            sources=self.sources,
        )

    async def describe(self, model: str = "") -> ModelInfo:
        return pick(await self.models(), model)

    async def models(self) -> tuple[ModelInfo, ...]:
        served = {worker.model.id: worker.model for worker in await self.workers() if worker.model}
        return tuple(served[id] for id in sorted(served))

    async def workers(self) -> tuple[WorkerInfo, ...]:
        """One worker per entry of `loaded`, which maps a worker's id to its model's, or to nothing."""
        return tuple(
            WorkerInfo(
                id,
                "localhost",
                100 + n,
                self._state_of(id),
                self.served(model) if model else None,
                started=1_700_000_000.0,
                heartbeat_age=0.2,
                memory_bytes=600 * 2**20,
            )
            for n, (id, model) in enumerate(self.loaded.items())
        )

    def _state_of(self, id: str) -> WorkerState:
        if id in self.draining:
            return "draining"
        return self.state if self.loaded[id] else "empty"  # type: ignore[return-value]

    async def control(self, worker_id: str, command: Command, model: str = "") -> None:
        if worker_id not in self.loaded:
            raise worker_not_found(worker_id)
        check_command(command, model)
        self.commands.append((worker_id, command, model))
        if command in ("drain", "resume"):
            (self.draining.add if command == "drain" else self.draining.discard)(worker_id)
        else:
            self.loaded[worker_id] = model if command == "load" else ""

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        self.requests.append(request)
        if refusal := await self._refusal(request):
            yield refusal
            return
        self.rows += 1
        try:
            async for event in self._write(request):
                yield event
        finally:
            self.rows -= 1

    async def _write(self, request: GenerationRequest) -> AsyncIterator[Event]:
        seed = request.sampling.seed if request.sampling.seed is not None else SEED
        steered = any(i.strength for i in request.interventions)
        yield Started(request.id, 0, prompt_tokens=12, seed=seed)
        count, stopped, caught, seq = 0, False, False, 0
        firings: tuple[Firing, ...] = ()
        if request.sampling.prompt_logprobs:
            seq += 1
            yield PromptRead(request.id, seq, prompt_tokens(request))
        if request.watches:
            seq += 1
            yield self._scored(request, seq, 0, 12)
        for count, word in enumerate(WORDS[: request.sampling.max_tokens], start=1):
            await asyncio.sleep(self.delay)
            if stopped := request.id in self.cancelled:
                count -= 1
                break
            if request.watches and count > 1:
                seq += 1
                yield self._scored(request, seq, 10 + count, 1)
            if fired := self._fired(request, 11 + count):
                seq += 1
                firings += fired
                yield Fired(request.id, seq, fired)
                if caught := any(firing.action == "stop" for firing in fired):
                    count -= 1
                    break
            seq += 1
            yield Token(request.id, seq, 100 + count, (word.upper() if steered else word) + " ", logprob=-0.5)
        reason = "cancelled" if stopped else "length" if request.sampling.max_tokens < len(WORDS) else "stop"
        model, applied = request.model or (await self.describe()).id, tuple(self._applied(request, count))
        receipt = Receipt(model, "fake", seed, applied, firings, len(firings))
        reason = "watch" if caught else reason
        yield Finished(request.id, seq + 1, reason, Usage(12, count), receipt, seconds=count * self.delay)  # type: ignore[arg-type]

    def _fired(self, request: GenerationRequest, position: int) -> tuple[Firing, ...]:
        """Watches fire where this fake was told, at 1.0."""
        here = [watch for watch in request.watches if position in self.fires.get(watch.name, ())]
        return tuple(Firing(w.name, position, 100 + position - 11, 1.0, w.action, 1.0) for w in here)

    @staticmethod
    def _scored(request: GenerationRequest, seq: int, start: int, tokens: int) -> Scored:
        """Watch w reads w + position / 100; no watch reads the first token."""
        values = tuple(
            tuple(None if at == 0 else w + at / 100 for w in range(len(request.watches)))
            for at in range(start, start + tokens)
        )
        return Scored(request.id, seq, start, values)

    def _applied(self, request: GenerationRequest, count: int) -> list[AppliedIntervention]:
        return [
            AppliedIntervention(
                i.vector_id,
                i.operation,
                f"blocks.{layer}.hook_resid_post",
                i.strength,
                i.unit,
                30.0,
                12,
                count,
                9.0,
                0.5,
                9.5,
            )
            for i in request.interventions
            for layer in i.layers or (9,)
        ]

    async def run(self, job: JobRequest) -> AsyncIterator[Event]:
        self.jobs.append(job)
        if refusal := await self._refusal(job):
            yield refusal
            return
        for done in range(5):
            if job.id in self.cancelled:
                return
            yield Progress(job.id, done, done, 5, "Reading activations", (5 - done) * self.delay, self.facts)
            await asyncio.sleep(self.delay)
            if job.id in self.finished:
                break
        yield Result(job.id, 5, self._payload(job))

    def _payload(self, job: JobRequest) -> dict[str, object]:
        """Scores by rule, anything else as this fake was told."""
        if isinstance(job, Score):
            return {"items": [_scored(item) for item in job.items]}
        if isinstance(job, Divergence):
            far = {"kl": 0.1, "top1": 0.9, "nll_base": 1.0, "nll_steered": 1.1, "tokens": 9}
            return {"texts": [far for _ in job.texts]}
        return self.payloads.get(job.kind, self.payload)

    async def _refusal(self, request: GenerationRequest | JobRequest) -> Failed | None:
        """As a real transport refuses a model that nobody serves."""
        served = [info.id for info in await self.models()]
        if not served or request.model not in ("", *served):
            error = not_served(request.model, served) if request.model else nothing_loaded()
            return Failed(request.id, 0, error.kind, error.code, error.message, error.retry_after)
        return None

    async def cancel(self, id: str) -> None:
        self.cancelled.add(id)

    async def finish(self, id: str) -> None:
        self.finished.add(id)

    async def put_vector(self, data: bytes) -> SteeringVector:
        from inference.store import load

        vector = load(data)
        self.vectors[vector.id] = data
        return vector

    async def get_vector(self, vector_id: str) -> bytes:
        if vector_id not in self.vectors:
            raise NotFound("vector_not_found", f"There is no vector {vector_id}. Upload it or build it again.")
        return self.vectors[vector_id]

    async def close(self) -> None:
        pass
