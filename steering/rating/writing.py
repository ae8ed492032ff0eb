"""Writes a study's completions: both of a pair are rows of one batch, with one seed, and kept when they are there.

A study that lost its process goes on where it stood, as soon as somebody looks at it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
from contextlib import aclosing
from typing import Any
from uuid import UUID

from django.db.models.functions import Now

from inference.errors import InferenceError
from inference.types import Failed, Finished, GenerationRequest, Intervention, Token
from steering import draining, gateway, shared
from steering.access import admission
from steering.access.estimate import tokens_in
from steering.access.principal import Principal
from steering.database import in_database
from steering.rating.models import Item, Study
from steering.rating.planning import StudySettings, messages_of, text_of

log = logging.getLogger(__name__)

PAIRS_AT_ONCE = 8
BEAT_SECONDS = 3.0
CRASHED = ("study_crashed", "Something in Steerboard broke while the answers were written. Go on, or start anew.")


STOPPED = ("stopped", "The writing was stopped. What was written is kept: go on when you like.")


def work_of(study_id: UUID) -> str:
    """All of a study's completions run under one id, by which they are stopped together."""
    return f"rating:{study_id}"


def study_write(study: Study) -> bool:
    """Take a study that nobody writes, and write it in this process. False when another has it.

    Raises Denied for a limit, Busy while this process stops.
    """
    draining.refuse_new_work()
    mark = f"{shared.PROCESS}/{secrets.token_hex(4)}"
    taken = Study.objects.abandoned().filter(pk=study.pk).update(carrier=mark, heartbeat_at=Now())
    if not taken:
        return False
    settings = StudySettings.from_wire(study.settings)
    items = [item for item in study.items.all() if not item.written]
    try:
        entry = admission.reserve(
            Principal(study.owner),
            work=work_of(study.pk),
            kind="generate",
            model=study.model_id,
            tokens=2 * (tokens_in(item.prompt for item in items) + settings.sampling.max_tokens * len(items)),
            source="rating",
        ).id
    except InferenceError:
        Study.objects.filter(pk=study.pk, carrier=mark).update(carrier="", heartbeat_at=None)
        raise
    gateway.spawn(_write(study.pk, mark, settings, items, entry))
    return True


async def _write(study_id: UUID, mark: str, settings: StudySettings, items: list[Item], entry: UUID) -> None:
    used = [0, 0]
    hold = draining.hold()
    beat = asyncio.create_task(_beat(study_id, mark, asyncio.current_task()))
    try:
        room = asyncio.Semaphore(PAIRS_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(_pair(settings, item, room, used))
        await in_database(_end, study_id, mark, state=Study.State.READY)
    except* InferenceError as errors:
        error: Any = errors.exceptions[0]
        await in_database(
            _end, study_id, mark, state=Study.State.FAILED, error_code=error.code, error_message=error.message
        )
    except* asyncio.CancelledError:
        pass  # deleted, or taken over: what was written is kept
    except* Exception:
        log.exception("study %s crashed", study_id)
        code, message = CRASHED
        await in_database(_end, study_id, mark, state=Study.State.FAILED, error_code=code, error_message=message)
    finally:
        beat.cancel()
        try:
            await in_database(admission.settle, entry, prompt_tokens=used[0], completion_tokens=used[1])
        finally:
            hold.release()


async def _beat(study_id: UUID, mark: str, work: asyncio.Task[Any] | None) -> None:
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        if not await in_database(_ours, study_id, mark) and work:
            work.cancel()
            return


def _ours(study_id: UUID, mark: str) -> bool:
    return Study.objects.filter(pk=study_id, carrier=mark).update(heartbeat_at=Now()) == 1


def _end(study_id: UUID, mark: str, **fields: Any) -> None:
    Study.objects.filter(pk=study_id, carrier=mark, state=Study.State.WRITING).update(**fields)


async def _pair(settings: StudySettings, item: Item, room: asyncio.Semaphore, used: list[int]) -> None:
    async with room:
        base, steered = await asyncio.gather(
            _complete(settings, item, (), used), _complete(settings, item, settings.interventions, used)
        )
        await in_database(_keep, item.pk, base, steered)


def _keep(item_id: int, base: str, steered: str) -> None:
    Item.objects.filter(pk=item_id).update(base=base, steered=steered)


async def _complete(
    settings: StudySettings, item: Item, interventions: tuple[Intervention, ...], used: list[int]
) -> str:
    sampling = dataclasses.replace(settings.sampling, seed=item.seed, fit=True)
    request = GenerationRequest(work_of(item.study_id), settings.model, sampling=sampling, interventions=interventions)
    if settings.chat:
        request = dataclasses.replace(request, messages=messages_of(settings, item.prompt))
    else:
        request = dataclasses.replace(request, prompt=text_of(settings, item.prompt))
    text = ""
    async with aclosing((await gateway.opened()).generate(request)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Failed):
                raise InferenceError(event.code, event.message, retry_after=event.retry_after)
            if isinstance(event, Token | Finished):
                text += event.text
            if isinstance(event, Finished):
                if event.reason == "cancelled":
                    raise InferenceError(*STOPPED)
                used[0] += event.usage.prompt_tokens
                used[1] += event.usage.completion_tokens
    return text.replace("\x00", "")
