"""Steerboard's model side as a library: load a model, build a vector, generate steered. No Django, no server.

    from inference.studio import Studio

    with Studio() as studio:
        vector = studio.train([("So calm.", "So angry!"), ...])
        print(studio.generate("How was your day?", vector=vector))

Synchronous, over the same client as the pages: calls from many threads share batches. See docs/library.md.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import uuid
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from inference import errors
from inference.client import Inference, connect
from inference.interchange import Loose, is_ours, read, request_for, write
from inference.policies.asking import Asker, client_asker
from inference.policies.replaying import replay
from inference.policies.runner import run_policy
from inference.policies.schema import Policy
from inference.policies.trace import Outcome, Trace
from inference.store import dump, load
from inference.types import (
    Constraint,
    CreateVector,
    Draft,
    Ensemble,
    Event,
    Failed,
    Finished,
    GenerationRequest,
    Intervention,
    JobRequest,
    Message,
    ModelInfo,
    Operation,
    Pair,
    Receipt,
    Result,
    SamplingParams,
    SteeringVector,
    Token,
    Unit,
)

T = TypeVar("T")
Prompt = str | Sequence[Message] | Sequence[dict[str, str]]
ENDINGS = {".safetensors": "safetensors", ".gguf": "gguf", ".json": "mechanex", ".svec": "svec"}


@dataclass(frozen=True)
class Completion:
    """What was written. `receipt` proves which steering acted, on how many tokens and how much."""

    text: str
    reason: str
    prompt_tokens: int
    completion_tokens: int
    receipt: Receipt

    def __str__(self) -> str:
        return self.text


class Studio:
    """One model. `model` is "default", a Hugging Face id, a folder or a GGUF file; or the URL of `inference.client`.

    `data_dir` keeps vectors and the prepared default model. `dtype` is auto, float32, bfloat16 or float64.
    Waits until the model is loaded. Raises InferenceError.
    """

    def __init__(self, model: str = "default", *, data_dir: Path | str = "data", dtype: str = "auto"):
        url = model if "://" in model else f"inprocess://{model}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="studio", daemon=True)
        self._thread.start()
        self._client = connect(url, data_dir=Path(data_dir).resolve(), dtype=dtype)
        try:
            self.model = self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def train(
        self,
        pairs: Iterable[Pair | tuple[str, str] | tuple[str, str, str]],
        *,
        method: str = "mean_difference",
        **settings: Any,
    ) -> SteeringVector:
        """A vector from contrastive pairs: (positive, negative), or (positive, negative, prompt).

        `settings` are those of `CreateVector`: pooling, span, chat, layers. Raises InvalidRequest saying which pair.
        """
        given = tuple(pair if isinstance(pair, Pair) else Pair(*pair) for pair in pairs)
        job = CreateVector.from_wire(
            {"id": _id(), "pairs": [p.to_wire() for p in given], "method": method, **_plain(settings)}
        )
        return self._vector_of(job)

    def generate(
        self,
        prompt: Prompt,
        vector: SteeringVector | None = None,
        *,
        strength: float | None = None,
        layer: int | None = None,
        operation: Operation = "add",
        unit: Unit = "relative",
        interventions: Sequence[Intervention] = (),
        constraint: Constraint | None = None,
        ensemble: Ensemble | None = None,
        draft: Draft | None = None,
        **sampling: Any,
    ) -> Completion:
        """A completion: of plain text, or of messages through the chat template. Without `vector`: the model's own.

        `strength` and `layer` are those that the vector recommends, unless given. `interventions` are for more than one
        vector. `constraint` is what the text must be, such as `Constraint("regex", "yes|no")`. `ensemble` has members
        with steering of their own. With a `draft`, such as `Draft()`, the same is written sooner. `sampling` are fields
        of `SamplingParams`: max_tokens (else at most 128), temperature, seed, stop, beam_width.
        """
        edits = tuple(interventions)
        if vector is not None:
            edits += (self.steer(vector, strength=strength, layer=layer, operation=operation, unit=unit),)
        sampling.setdefault("fit", "max_tokens" not in sampling)
        request = GenerationRequest(
            id=_id(),
            sampling=SamplingParams(**sampling),
            interventions=edits,
            constraint=constraint,
            ensemble=ensemble,
            draft=draft,
            **_prompt(prompt),
        )
        return self._run(self._complete(request))

    def generate_many(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """Many at once, as rows of shared batches, each with its own steering; in the order given."""

        async def all_of_them() -> list[Completion]:
            return await asyncio.gather(*(self._complete(request) for request in requests))

        return self._run(all_of_them())

    def run_policy(
        self,
        policy: Policy | dict[str, Any],
        prompt: Prompt,
        *,
        max_new_tokens: int = 128,
        seed: int | None = None,
        include_trace: bool = True,
        allow_unit_tests: bool = False,
    ) -> Outcome:
        """Run a policy: its candidates are rows of one batch, checked, repaired and retried. See docs/policies.md.

        Name a vector that was trained or kept here by its id. `allow_unit_tests` runs written code, in a sandbox.
        """
        wanted = policy if isinstance(policy, Policy) else Policy.parse(policy)
        said = prompt if isinstance(prompt, str) else _prompt(prompt)["messages"]
        return self._run(
            run_policy(
                wanted,
                said,
                self.asker(),
                max_new_tokens=max_new_tokens,
                seed=seed,
                include_trace=include_trace,
                allow_unit_tests=allow_unit_tests,
            )
        )

    def replay(self, trace: Trace | dict[str, Any], *, allow_unit_tests: bool = False) -> Outcome:
        """Run a policy's trace again, to the same texts. Raises InvalidRequest where model or steering are others."""
        before = trace if isinstance(trace, Trace) else Trace.from_wire(trace)
        return self._run(replay(before, self.asker(), allow_unit_tests=allow_unit_tests))

    def stream(self, request: GenerationRequest) -> Iterator[Event]:
        """The events of one request as they come. Leaving it early cancels the row; a Failed is raised."""
        arrived: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

        async def follow() -> None:
            try:
                async for event in self._client.generate(request):
                    arrived.put(event)
            finally:
                arrived.put(None)

        following = asyncio.run_coroutine_threadsafe(follow(), self._loop)
        try:
            while (event := arrived.get()) is not None:
                if isinstance(event, Failed):
                    raise errors.from_wire(event.to_wire())
                yield event
            following.result()
        finally:
            following.cancel()

    @property
    def client(self) -> Inference:
        """The verbs beneath, for programs that have an event loop of their own: in this process, any loop will do."""
        return self._client

    def asker(self) -> Asker:
        """What `inference.policies` asks this model through; its coroutines are for `wait_for`."""
        return client_asker(self._client)

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on this object's own loop, to its end."""
        return self._run(work)

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """The same without waiting for it. To cancel the future is to end the work."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def steer(
        self,
        vector: SteeringVector,
        *,
        strength: float | None = None,
        layer: int | None = None,
        operation: Operation = "add",
        unit: Unit = "relative",
    ) -> Intervention:
        """An intervention with a stored vector, at the layer and strength that it recommends unless given."""
        return Intervention(
            operation=operation,
            strength=vector.recommended_strength if strength is None else strength,
            unit=unit,
            vector_id=self.keep(vector).id,
            layers=(vector.recommended_layer if layer is None else layer,),
        )

    def keep(self, vector: SteeringVector) -> SteeringVector:
        """Store a vector where the engine finds it. Harmless when it is there."""
        return self._run(self._client.put_vector(dump(vector)))

    def run(self, job: JobRequest) -> dict[str, Any]:
        """Any job of `inference.types`, to its end: the payload of its Result. Raises InferenceError."""
        return self._run(self._result_of(job))

    def save(self, vector: SteeringVector, path: Path | str, *, layers: Sequence[int] | None = None) -> tuple[str, ...]:
        """Write a file; the ending says which: .safetensors, .gguf, .json (Mechanex) or .svec.

        `layers` as of `interchange.write`. Returns sentences that say where its layers are.
        """
        path = Path(path)
        kind = ENDINGS.get(path.suffix)
        if kind is None:
            raise errors.InvalidRequest("unknown_format", f"{path.name} ends in none of {', '.join(ENDINGS)}.")
        if kind == "safetensors":
            path.write_bytes(dump(vector))
            return ()
        hint = self.model.architecture.removesuffix("ForCausalLM").lower()
        written = write(vector, kind, layers, hint=hint, n_layers=self.model.n_layers)
        path.write_bytes(written.data)
        return written.notes

    def load(self, source: Path | str | Loose, **told: Any) -> SteeringVector:
        """A vector from a file of any format, or an object read by `interchange.packages`.

        Files of other programs lack facts: `told` gives those of `interchange.request_for` (site, layer, strength), and
        the size of an ordinary token is measured. Raises InvalidRequest naming what is missing.
        """
        if not isinstance(source, Loose):
            data = Path(source).read_bytes()
            if is_ours(data):
                return self.keep(load(data))
            source = read(data)
        return self._vector_of(request_for(source, id=_id(), **told))

    def close(self) -> None:
        """End the engine. Harmless a second time."""
        if self._loop.is_closed():
            return
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ---- on the loop ----

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.begin(work).result()

    def _wait_until_ready(self) -> ModelInfo:
        while (info := self._run(self._client.describe())).state == "loading":
            time.sleep(0.05)
        if info.state == "failed":
            raise errors.Unavailable("model_not_loaded", info.problem)
        return info

    async def _complete(self, request: GenerationRequest) -> Completion:
        text: list[str] = []
        async for event in self._client.generate(request):
            if isinstance(event, Failed):
                raise errors.from_wire(event.to_wire())
            if isinstance(event, Token | Finished):
                text.append(event.text)
            if isinstance(event, Finished):
                end = event
        usage = end.usage
        return Completion("".join(text), end.reason, usage.prompt_tokens, usage.completion_tokens, end.receipt)

    async def _result_of(self, job: JobRequest) -> dict[str, Any]:
        async for event in self._client.run(job):
            if isinstance(event, Failed):
                raise errors.from_wire(event.to_wire())
            if isinstance(event, Result):
                payload = event.payload
        return payload

    def _vector_of(self, job: JobRequest) -> SteeringVector:
        made = self.run(job)["vector"]["id"]
        return load(self._run(self._client.get_vector(made)))


def _id() -> str:
    return uuid.uuid4().hex


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple | range) else value for name, value in settings.items()}


def _prompt(prompt: Prompt) -> dict[str, Any]:
    if isinstance(prompt, str):
        return {"prompt": prompt}
    return {"messages": tuple(m if isinstance(m, Message) else Message.from_wire(m) for m in prompt)}


def chat(text: str, system: str = "") -> tuple[Message, ...]:
    """One question as messages, to go through the chat template."""
    return ((Message("system", system),) if system else ()) + (Message("user", text),)
