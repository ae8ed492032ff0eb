"""Training an autoencoder as a job: chats first where they are wanted, then the steps, then an index of the text.

The steps are the engine's job `TrainSae` under the job's own id, so that "stop and keep" reaches it. An equal request
goes on where one was cut off, so going on is asking again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from channels.db import database_sync_to_async

from inference.client import Inference
from inference.errors import NotFound
from inference.saes.training.chats import sample_chats
from inference.types import (
    Event,
    Failed,
    IndexCorpus,
    ModelInfo,
    Progress,
    Result,
    TrainSae,
    Wire,
)
from steering.access.estimate import tokens_in
from steering.access.principal import Principal
from steering.datasets.models import Dataset
from steering.features.training_models import Training
from steering.jobs.kinds import keeps_results_of, recipe
from steering.jobs.models import Job
from steering.jobs.runner import job_start

KIND = "train_source"
TOKENS_OF_A_CHAT = 200
INDEXED_CHARACTERS = 2_000_000
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class TrainSource(Wire):
    """A stored training, by its id. Facts and payload are those of `TrainSae`."""

    id: str
    training: str
    model: str = ""
    kind: Literal["train_source"] = "train_source"


def training_start(
    *,
    owner: Any,
    model: ModelInfo,
    name: str,
    recipe: dict[str, Any],
    datasets: tuple[Dataset, ...] = (),
    file: tuple[str, str] | None = None,
    chats: int = 0,
    licence: str = "",
    index: bool = True,
    who: Principal | None = None,
) -> Training:
    """Start training. `recipe` holds fields of TrainSae; `file` is (name, text). Raises Denied for a limit."""
    texts = [text for dataset in datasets for text in texts_of(dataset)]
    data: dict[str, Any] = {"chats": chats, "index": index}
    if datasets:
        data["datasets"] = [{"id": str(d.pk), "name": d.name, "version": d.version} for d in datasets]
    if file:
        data["file"] = {"name": file[0][:200], "characters": len(file[1])}
        texts.append(file[1])
    if licence:
        data["licence"] = licence
    training = Training(owner=owner, model_id=model.id, recipe=recipe, data=data, texts=texts)
    training.source = f"{recipe['layer']}-{name}"
    training.save()
    training_go_on(training, who=who)
    return training


def training_go_on(training: Training, *, who: Principal | None = None) -> Job:
    """A job that begins where the last was cut off. Raises Denied."""
    tokens = tokens_in(training.texts) + TOKENS_OF_A_CHAT * int(training.data.get("chats", 0))
    job = job_start(
        owner=training.owner,
        kind=KIND,
        title=f"Train {training.source}",
        request=TrainSource("", str(training.pk), model=training.model_id),
        about={"source": training.source} | training.recipe,
        who=who,
        source="features",
        tokens=tokens,
    )
    training.job = job
    training.save(update_fields=["job"])
    return job


def texts_of(dataset: Dataset) -> list[str]:
    """Both sides of every pair, each behind its prompt."""
    return [pair.prompt + side for pair in dataset.pairs() for side in (pair.positive, pair.negative) if side.strip()]


# ---- the job ----


async def train_source(client: Inference, request: TrainSource) -> AsyncIterator[Event]:
    training = await database_sync_to_async(_stored)(request.training)
    if training.data.get("chats") and not training.chats:
        async for progress in _write_chats(client, training, request.id):
            yield progress
    found: Result | None = None
    async with aclosing(client.run(_request(training, request.id))) as events:  # type: ignore[type-var]
        async for event in events:
            if not isinstance(event, Result):
                yield event
                continue
            found = event
    if found is None:
        return
    if training.data.get("index"):
        async for event in _index(client, training, request.id):
            yield event
    yield found


async def _write_chats(client: Inference, training: Training, id: str) -> AsyncIterator[Progress]:
    note, steps = "", int(training.recipe.get("steps", 0))

    def tell(said: str) -> None:
        nonlocal note
        note = said

    writing = asyncio.create_task(
        sample_chats(client, int(training.data["chats"]), model=training.model_id, seed=_seed(training), tell=tell)
    )
    try:
        while not (await asyncio.wait({writing}, timeout=LOOK_SECONDS))[0]:
            yield Progress(id, 0, 0, steps, note or "Writing conversations")
        training.chats = [[message.to_wire() for message in chat] for chat in writing.result()]
    finally:
        writing.cancel()
    await database_sync_to_async(training.save)(update_fields=["chats"])


async def _index(client: Inference, training: Training, id: str) -> AsyncIterator[Event]:
    """Contexts and maxima of every feature, from the same text. The SAE is there whatever becomes of this."""
    texts, left = [], INDEXED_CHARACTERS
    for text in [*training.texts, *("\n".join(m["content"] for m in chat) for chat in training.chats)]:
        texts.append(text[:left])
        left -= len(text)
        if left <= 0:
            break
    steps = int(training.recipe.get("steps", 0))
    async with aclosing(  # type: ignore[type-var]
        client.run(IndexCorpus(id, training.source, tuple(texts), model=training.model_id))
    ) as events:
        async for event in events:
            if isinstance(event, Progress):
                yield Progress(id, 0, steps, steps, f"Indexing: {event.note}", event.eta_seconds)
            elif isinstance(event, Failed):
                yield Progress(id, 0, steps, steps, f"The text was not indexed: {event.message}")


def _request(training: Training, id: str) -> TrainSae:
    return TrainSae.from_wire(
        training.recipe
        | {
            "id": id,
            "name": training.source.split("-", 1)[1],
            "texts": training.texts,
            "conversations": training.chats,
            "description": training.data,
            "model": training.model_id,
        }
    )


def _seed(training: Training) -> int:
    return int(training.recipe.get("seed", 0))


def _stored(pk: str) -> Training:
    training = Training.objects.filter(pk=UUID(pk)).first()
    if training is None:
        raise NotFound("training_not_found", "This training was deleted. Start a new one.")
    return training


recipe(TrainSource, train_source)


@keeps_results_of(KIND)
def keep_training(job: Job, payload: dict[str, Any]) -> None:
    facts = payload["facts"]
    Training.objects.filter(pk=job.request["training"]).update(facts=facts, source=payload["source"])
    job.used_tokens = int(facts["data"]["tokens"])
    job.written_tokens = 0
    if training := Training.objects.filter(pk=job.request["training"]).first():
        job.result_url = training.get_absolute_url()
