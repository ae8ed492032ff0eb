"""Starts, carries, ends and resumes experiments.

An experiment is carried by one process at a time, on the gateway's loop. Its recipe begins anew wherever it is taken up
again, and since every answer is kept by what was asked, it is soon where it was: nothing is missing, nothing doubled.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from channels.db import database_sync_to_async
from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from inference.errors import Busy, InferenceError, InvalidRequest
from inference.types import ModelInfo
from steering import draining, gateway, shared
from steering.access.principal import Principal
from steering.experiments import charging
from steering.experiments.estimate import Estimate, estimate
from steering.experiments.livebench import BUSY_DATABASE, DATABASE_PAUSES, LiveBench, Lost
from steering.experiments.models import Experiment
from steering.experiments.recipes import run_recipe
from steering.experiments.recipes.subject import Subject
from steering.experiments.settings import SETTINGS, Settings, check
from steering.experiments.subjects import subjects_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_AT_ONCE = 3  # of one person
BEAT_SECONDS = 2.0
LOADING_SECONDS = 1.0
SWEEP_SECONDS = 3.0
CRASHED = (
    "experiment_crashed",
    "Something in Steerboard broke while this experiment ran. What was measured is kept: resume it; if this repeats, "
    "send its id to whoever runs this server, whose log has the cause.",
)

_carried: set[UUID] = set()


# ---- starting and ending ----


def experiment_start(
    *,
    owner: Any,
    recipe: str,
    name: str,
    settings: Settings,
    model: ModelInfo,
    who: Principal | None = None,
    source: str = "experiments",
    carry: bool = True,
) -> Experiment:
    """Save an experiment and begin it. Raises InferenceError for what cannot be measured, Denied for a limit.

    Without `carry` nobody begins it: the caller hands it to `experiment_carry`.
    """
    draining.refuse_new_work()
    who = who or Principal(owner)
    check(settings)
    if not model.id:
        raise InvalidRequest("no_model", "No model is ready yet, and an experiment needs to know which one. Try again.")
    who.require_model(model.id)
    subjects_of(owner, settings, model)
    experiment = Experiment(owner=owner, recipe=recipe, name=name, settings=settings.to_wire())
    experiment.model_id, experiment.revision = model.id, model.revision
    _queue(experiment, who, estimate(settings, model), source)
    if carry:
        transaction.on_commit(lambda: gateway.spawn(experiment_carry(experiment.pk)))
    return experiment


def experiment_resume(experiment: Experiment, *, who: Principal | None = None, source: str = "experiments") -> bool:
    """Begin one again that failed or was cancelled: what was measured is kept. False when it is active or done."""
    draining.refuse_new_work()
    if experiment.state not in (Experiment.State.FAILED, Experiment.State.CANCELLED):
        return False
    who = who or Principal(experiment.owner)
    who.require_model(experiment.model_id)
    settings = settings_of(experiment)
    experiment.error_code = experiment.error_message = experiment.note = experiment.carrier = ""
    experiment.finished_at, experiment.eta_seconds, experiment.state = None, None, Experiment.State.QUEUED
    _queue(experiment, who, estimate(settings, ModelInfo("ready", experiment.model_id)), source)
    transaction.on_commit(lambda: gateway.spawn(experiment_carry(experiment.pk)))
    return True


@transaction.atomic
def _queue(experiment: Experiment, who: Principal, expected: Estimate, source: str) -> None:
    get_user_model().objects.select_for_update(no_key=True).get(pk=experiment.owner_id)  # one after the other
    active = Experiment.objects.active().filter(owner=experiment.owner_id).exclude(pk=experiment.pk)
    if active.count() >= MAX_AT_ONCE:
        raise Busy(
            "too_many_experiments",
            f"{MAX_AT_ONCE} of your experiments are still running. Cancel one, or wait until one ends.",
            retry_after=30,
        )
    experiment.total = expected.points
    experiment.save()
    charging.reserve(who, experiment, expected.tokens, source)


def experiment_cancel(experiment: Experiment) -> bool:
    """End it now, whoever carries it; what was measured is kept. Harmless, and False, when it had ended already."""
    return _end(Experiment.objects.active().filter(pk=experiment.pk), state=Experiment.State.CANCELLED)


@transaction.atomic
def _end(rows: Any, **fields: Any) -> bool:
    ids = list(rows.values_list("pk", flat=True))
    ended = rows.update(finished_at=timezone.now(), eta_seconds=None, note="", **fields)
    for pk in ids if ended else ():
        charging.settle(pk)
    return bool(ended)


def settings_of(experiment: Experiment) -> Settings:
    """Raises InvalidRequest when this version does not know them."""
    return SETTINGS[experiment.recipe].from_wire(experiment.settings)


# ---- taking up what nobody carries ----


def experiments_resume() -> None:
    """Take up what waits, from now on, where one process does everything; others have their sweeper."""
    gateway.spawn(_sweep_forever())


async def _sweep_forever() -> None:
    while True:
        try:
            await experiments_sweep()
        except Exception:
            logger.exception("Looking after waiting experiments broke; it goes on")
        await asyncio.sleep(SWEEP_SECONDS)


async def experiments_sweep() -> None:
    """Take up what lost its carrier or never had one. Any process may, at any time; one of them gets it."""
    if not draining.active():
        for pk in await _in_database(lambda: list(Experiment.objects.waiting().values_list("pk", flat=True))):
            if pk not in _carried:
                gateway.spawn(experiment_carry(pk))
    await _in_database(charging.settle_ended)


# ---- carrying ----


async def experiment_carry(pk: UUID) -> None:
    """Work on an experiment until it ends. Nothing happens when it has ended, or another process has it."""
    experiment = await _in_database(_claim, pk)
    if experiment is None:
        return
    _carried.add(pk)
    try:
        await _carry(experiment)
    except Lost:
        logger.info("Experiment %s was ended or taken up elsewhere", pk)
    except InferenceError as error:
        await _fail(experiment, error.code, error.message)
    except Exception:
        logger.exception("Experiment %s crashed", pk)
        await _fail(experiment, *CRASHED)
    finally:
        _carried.discard(pk)


def _claim(pk: UUID) -> Experiment | None:
    """The carrier is new each time: a process that was taken for dead may get its own experiment again."""
    fields = {"carrier": f"{shared.PROCESS}/{secrets.token_hex(4)}", "state": Experiment.State.RUNNING}
    if not Experiment.objects.waiting().filter(pk=pk).update(heartbeat_at=Now(), **fields):
        return None
    experiment = Experiment.objects.select_related("owner").get(pk=pk)
    if experiment.started_at is None:
        experiment.started_at = timezone.now()
        Experiment.objects.filter(pk=pk).update(started_at=experiment.started_at)
    return experiment


async def _carry(experiment: Experiment) -> None:
    client = await gateway.opened()
    model, subjects = await _ready(experiment, client)
    bench = LiveBench(experiment, client, model)
    work = asyncio.ensure_future(run_recipe(bench, settings_of(experiment), subjects))
    try:
        while not (await asyncio.wait({work}, timeout=BEAT_SECONDS))[0]:
            await bench.beat()
            if draining.active():
                await _in_database(bench.ours().update, carrier="", note="waiting for another process")
                raise Lost
        await _succeed(bench, work.result())
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await bench.close()


async def _ready(experiment: Experiment, client: Any) -> tuple[ModelInfo, list[Subject]]:
    """Wait while the model loads; then the model and the vectors. Raises InferenceError, Lost."""
    ours = Experiment.objects.active().filter(pk=experiment.pk, carrier=experiment.carrier)
    while (model := await client.describe(experiment.model_id)).state == "loading":
        if not await _in_database(ours.update, heartbeat_at=Now(), note="the model is still loading"):
            raise Lost
        await asyncio.sleep(LOADING_SECONDS)
    if model.state == "failed":
        raise InvalidRequest("model_not_ready", f"{model.problem or 'The model is not there.'} Then resume this.")
    return model, await _in_database(subjects_of, experiment.owner, settings_of(experiment), model)


async def _succeed(bench: LiveBench, findings: dict[str, Any]) -> None:
    done = {"state": Experiment.State.SUCCEEDED, "findings": findings}
    points = await _in_database(bench.experiment.points.count)
    if not await _in_database(_end, bench.ours(), **done, done=points, total=points):
        raise Lost


async def _fail(experiment: Experiment, code: str, message: str) -> None:
    ours = Experiment.objects.active().filter(pk=experiment.pk, carrier=experiment.carrier)
    fields = {"state": Experiment.State.FAILED, "error_code": code, "error_message": message}
    await _in_database(_end, ours, **fields)


async def _in_database(work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    run = database_sync_to_async(work, thread_sensitive=False)
    for pause in DATABASE_PAUSES:
        try:
            return await run(*args, **kwargs)
        except BUSY_DATABASE:
            await asyncio.sleep(pause)
    return await run(*args, **kwargs)
