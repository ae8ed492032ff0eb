"""What belongs to a kind of job by name, so that a process can carry a job that another one started."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from inference.client import Inference
from inference.errors import InvalidRequest
from inference.types import JOB_REQUESTS, Event, Wire
from steering.jobs.models import Job

OnResult = Callable[[Job, dict[str, Any]], None]
Recipe = Callable[[Inference, Any], AsyncIterator[Event]]

_keepers: dict[str, OnResult] = {}
_recipes: dict[type[Wire], Recipe] = {}


def keeps_results_of(kind: str) -> Callable[[OnResult], OnResult]:
    """Name the function that keeps what jobs of a kind found; to be imported when Django starts.

    It runs in the transaction that marks the job succeeded, so what it saves exists exactly when the job succeeded; it
    may set `job.result_url`, and `job.used_tokens` and `job.written_tokens` for the ledger. Keep it short.
    """

    def register(keep: OnResult) -> OnResult:
        _keepers[kind] = keep
        return keep

    return register


def keeper_of(kind: str) -> OnResult | None:
    return _keepers.get(kind)


def recipe(request: type[Wire], run: Recipe) -> None:
    """Let `run` do jobs of this class: many small askings of a client, where others are one job of an engine.

    It yields Progress and then one Result, or raises InferenceError; `seq` counts for nothing. Leaving it must end what
    it has begun. `request` is a dataclass with `id`, `model` and `kind`; to be called when Django starts.
    """
    _recipes[request] = run


def is_recipe(request: Wire) -> bool:
    return type(request) in _recipes


def events_of(client: Inference, request: Any) -> AsyncIterator[Event]:
    """What happens while a request is worked on, by the engine or by its recipe."""
    run = _recipes.get(type(request))
    return run(client, request) if run else client.run(request)


def _class_of(kind: str) -> type[Wire] | None:
    ours = {getattr(cls, "kind", ""): cls for cls in _recipes}
    return JOB_REQUESTS.get(kind) or ours.get(kind)


def request_of(job: Job) -> Any:
    """The request of a job that was stored whole. Raises InvalidRequest when this version does not know it."""
    work = job.work or {}
    cls = _class_of(work.get("kind", ""))
    if cls is None:
        raise InvalidRequest(
            "unknown_job", "This job was started by another version of Steerboard. Start it again with this one."
        )
    return cls.from_wire(work)
