"""The verbs through which everything else reaches a model, and the place where a URL becomes a transport.

`inprocess://default`, `inprocess:///abs/path` or `inprocess://org/name` hold the engine in a thread of this process;
`vllm://default` and its like do the same with vLLM's engine (docs/vllm.md), in a Python that has vLLM;
`redis://host:6379/0` reaches the engines of `inference.worker` processes, and loads no torch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from inference.errors import InvalidRequest
from inference.serving.kinds import check_engine
from inference.types import Command, Event, GenerationRequest, JobRequest, ModelInfo, SteeringVector, WorkerInfo


class Inference(Protocol):
    """What a transport offers. Leaving an iterator early cancels the work behind it."""

    def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        """Stream Started, Token..., then exactly one of Finished and Failed. Never raises for a bad request."""
        ...

    def run(self, job: JobRequest) -> AsyncIterator[Event]:
        """Stream Progress..., then exactly one of Result and Failed."""
        ...

    async def describe(self, model: str = "") -> ModelInfo:
        """A served model and its load; "" is the default one. Answers at once, while the model still loads too.

        Never raises: a model that nobody serves, or a transport that is down, is state "failed" with its `problem`.
        """
        ...

    async def models(self) -> tuple[ModelInfo, ...]:
        """What is served, by id; the load of workers with the same model is summed. Raises Unavailable."""
        ...

    async def workers(self) -> tuple[WorkerInfo, ...]:
        """Every process that holds an engine, those lately lost too. Raises Unavailable."""
        ...

    async def control(self, worker_id: str, command: Command, model: str = "") -> None:
        """Ask a worker to load another model, unload its own, drain (finish what runs, refuse the new), or resume.

        Returns once the worker was asked; `workers()` shows what comes of it. What runs when a model is exchanged has
        30 s to finish, then ends with Failed("shutting_down"). Raises NotFound("worker_not_found"), InvalidRequest.
        """
        ...

    async def cancel(self, id: str) -> None:
        """Stop a generation or job. Harmless when it has ended or never was."""
        ...

    async def finish(self, id: str) -> None:
        """Ask a job to end with the best it has, where its kind can (OptimiseVector); others take no notice."""
        ...

    async def put_vector(self, data: bytes) -> SteeringVector:
        """Keep a vector (the bytes of `inference.store.dump`) where the engine finds it by content id."""
        ...

    async def get_vector(self, vector_id: str) -> bytes:
        """The stored bytes of a vector. Raises NotFound."""
        ...

    async def close(self) -> None:
        """End the engine or the connection; running work ends with Failed("shutting_down")."""
        ...


def connect(url: str, *, data_dir: Path, dtype: str = "auto") -> Inference:
    """Open the transport that `url` names; the model loads in the background. Raises InvalidRequest("bad_url")."""
    scheme, _, name = url.partition("://")
    if scheme in ("inprocess", "vllm"):
        from inference.companions import names_from  # loads torch, as the next: only where the engine lives
        from inference.transports.inprocess import InProcess

        kind = check_engine("vllm" if scheme == "vllm" else "built-in", names_from())
        return InProcess(name or "default", data_dir=data_dir, dtype=dtype, engine=kind)
    if scheme in ("redis", "rediss"):
        from inference.transports.remote import Remote

        return Remote(url, data_dir=data_dir)
    raise InvalidRequest(
        "bad_url",
        f"INFERENCE_URL={url!r} is not understood. Use inprocess://default, vllm://default or redis://host:6379/0.",
    )
