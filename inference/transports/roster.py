"""Who serves what: workers as Redis lists them, and models as workers serve them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from inference.errors import InferenceError, Unavailable
from inference.serving import link
from inference.serving.refusals import as_served, draining, not_served, nothing_loaded
from inference.types import ModelInfo, WorkerInfo, WorkerState

log = logging.getLogger(__name__)

_ORDER = ("ready", "loading", "failed")


async def read_workers(connection: Any) -> tuple[WorkerInfo, ...]:
    """Every worker that was heard of within `RECORD_SECONDS`. Raises redis.RedisError."""
    ids = sorted(id.decode() for id in await connection.smembers(link.WORKERS))
    if not ids:
        return ()
    pipe = connection.pipeline(transaction=False)
    for id in ids:
        pipe.get(link.key("worker", id)).pttl(link.key("worker", id))
    replies = await pipe.execute()
    found, gone = [], []
    for id, data, left in zip(ids, replies[::2], replies[1::2], strict=True):
        if data is None or left < 0:
            gone.append(id)
            continue
        try:
            info = WorkerInfo.from_wire(json.loads(data))
        except (ValueError, InferenceError) as error:  # of another version: the others can be used all the same
            log.warning("worker %s is left out, what it says of itself cannot be read: %s", id, error)
            continue
        age = max(0.0, link.RECORD_SECONDS - left / 1000)
        found.append(replace(info, heartbeat_age=age, state="lost" if age > link.LOST_SECONDS else info.state))
    if gone:
        await connection.srem(link.WORKERS, *gone)
    return tuple(found)


def merged(workers: Iterable[WorkerInfo]) -> tuple[ModelInfo, ...]:
    """One entry for each model that living workers hold, by id, the load of its workers summed."""
    by_id: dict[str, list[ModelInfo]] = {}
    for worker in workers:
        if worker.state != "lost" and (info := as_served(worker.state, worker.model)):
            by_id.setdefault(info.id, []).append(info)
    return tuple(_sum(by_id[id]) for id in sorted(by_id))


def _sum(infos: list[ModelInfo]) -> ModelInfo:
    best = min(infos, key=lambda info: _ORDER.index(info.state))
    same = [info for info in infos if info.state == best.state]
    return replace(
        best,
        rows=sum(info.rows for info in same),
        waiting=sum(info.waiting for info in same),
        max_rows=sum(info.max_rows for info in same),
        tokens_per_second=sum(info.tokens_per_second for info in same),
        companions=tuple(id for id in best.companions if all(id in info.companions for info in same)),
    )


def choose(workers: Iterable[WorkerInfo], model: str) -> str:
    """The id of the model that a request for `model` goes to. Raises InferenceError: nobody takes it now, and why."""
    workers = list(workers)
    living = [w for w in workers if w.state != "lost"]
    ready = sorted(w.model.id for w in living if w.state == "ready" and w.model and model in ("", w.model.id))
    if ready:
        return ready[0]
    raise _why_not({w.state: w.model for w in workers if w.model and model in ("", w.model.id)}, living, model)


def _why_not(states: dict[WorkerState, ModelInfo], living: list[WorkerInfo], model: str) -> InferenceError:
    """`states` are those of the workers that have the model."""
    if info := states.get("loading"):
        sentence = f"The model is still loading ({info.load_seconds:.0f} s so far). Try again shortly."
        return Unavailable("model_loading", sentence, retry_after=3.0)
    if "draining" in states:
        return draining()
    if info := states.get("failed"):
        return Unavailable("model_not_loaded", info.problem)
    if not living or "lost" in states:
        return no_worker()
    return not_served(model, sorted({w.model.id for w in living if w.model})) if model else nothing_loaded()


def no_worker() -> Unavailable:
    return Unavailable(
        "no_worker",
        "No worker that serves this is running. Start one with python -m inference.worker.",
        retry_after=5.0,
    )
