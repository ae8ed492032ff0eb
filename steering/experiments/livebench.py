"""The bench behind an experiment: asks the model what was never asked, and writes down every answer once.

Answers that end close together are written in one transaction, which also renews the lease by which other processes
know that the experiment is carried. Where the lease is lost, nothing more is written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from channels.db import database_sync_to_async
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F
from django.db.models.functions import Now

from inference.client import Inference
from inference.types import Intervention, ModelInfo, ScoreItem
from steering.experiments import digests
from steering.experiments.asking import Asking
from steering.experiments.bench import Ask, Likelihood, Written
from steering.experiments.models import Experiment, Measurement, Point
from steering.experiments.recipes.together import all_of

T = TypeVar("T")

WRITE_SECONDS = 0.25
REPORT_SECONDS = 1.0
ITEMS_PER_JOB = 8  # scored in one job: enough to share batches, few enough to come back soon
LEAST_AT_ONCE = 4
SHARE_AT_ONCE = 0.75  # of the model's rows: people who write meanwhile find a place
BUSY_DATABASE = (OperationalError, InterfaceError)
DATABASE_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)

NOTHING = Likelihood((0.0,), (0,))  # an answer may be empty

_writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="experiment-writes")


class Lost(Exception):
    """The experiment has ended, or another process has it."""


class LiveBench:
    def __init__(self, experiment: Experiment, client: Inference, model: ModelInfo):
        self.experiment, self._model = experiment, model
        self._asking = Asking(client, model, self._note_waiting)
        self._places = asyncio.Semaphore(max(LEAST_AT_ONCE, int(model.max_rows * SHARE_AT_ONCE)))
        self._jobs = asyncio.Semaphore(4)
        self._coming: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._unwritten: list[tuple[str, str, dict[str, Any], asyncio.Future[None]]] = []
        self._writing: asyncio.Future[None] | None = None
        self._counted = self._fresh = 0
        self._before = experiment.done  # taken up again, it is soon there
        self._began = time.monotonic()
        self._reported = 0.0
        self._findings: dict[str, Any] | None = None
        self._total, self._note = experiment.total, ""

    # ---- what recipes ask ----

    async def complete(self, asks: Sequence[Ask]) -> list[Written]:
        wanted = [digests.of_completion(ask, self._model) for ask in asks]
        known = await self._known(wanted)
        await self._point_at(asks, wanted, known)  # what was there before is drawn at once
        self._count(sum(digest in known for digest in wanted))
        answers = await all_of(
            self._once(digest, known, partial(self._write_one, ask), "complete")
            for ask, digest in zip(asks, wanted, strict=True)
        )
        fresh = [(ask, digest) for ask, digest in zip(asks, wanted, strict=True) if digest not in known]
        if fresh:
            missing = [digest for _, digest in fresh]
            await self._point_at([ask for ask, _ in fresh], missing, await self._known(missing))
        self._count(len(fresh))
        return [Written(a["text"], a["tokens"], a["stopped"], tuple(a["applied"])) for a in answers]

    async def read(self, items: Sequence[ScoreItem], *, counted: bool = False) -> list[Likelihood]:
        wanted = {i: digests.of_reading(item, self._model) for i, item in enumerate(items) if all(item.continuations)}
        known = await self._known(list(wanted.values()))
        missing = {digest: items[i] for i, digest in wanted.items() if digest not in known}
        await self._in_jobs(missing, lambda some: self._asking.score(tuple(some)), "score")
        found = known | await self._known(list(missing))
        self._count(len(items) if counted else 0)
        return [_likelihood(found[wanted[i]][1]) if i in wanted else NOTHING for i in range(len(items))]

    async def diverge(self, texts: Sequence[str], interventions: tuple[Intervention, ...]) -> list[dict[str, Any]]:
        wanted = [digests.of_divergence(text, interventions, self._model) for text in texts]
        known = await self._known(wanted)
        missing = {d: text for d, text in zip(wanted, texts, strict=True) if d not in known}
        await self._in_jobs(missing, lambda some: self._asking.diverge(tuple(some), interventions), "divergence")
        found = known | await self._known(list(missing))
        return [found[digest][1] for digest in wanted]

    async def keep(self, group: str, scores: Sequence[dict[str, Any]]) -> None:
        await self._in_database(self._keep, group, list(scores))

    async def report(self, findings: dict[str, Any]) -> None:
        self._findings = findings
        if time.monotonic() - self._reported >= REPORT_SECONDS:
            await self.beat()

    def expect(self, points: int, note: str = "") -> None:
        self._total, self._note = points, note

    async def close(self) -> None:
        """End what is still asked for."""
        asked = list(self._coming.values())
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    # ---- the lease ----

    async def beat(self) -> None:
        """Say that the experiment is carried, and how far it is. Raises Lost."""
        self._reported = time.monotonic()
        facts: dict[str, Any] = {"heartbeat_at": Now(), "total": self._total, "note": self._note[:300]}
        if self._findings is not None:
            facts["findings"], self._findings = self._findings, None
        done = min(max(self._counted, self._before), self._total)
        facts |= {"done": done, "rate": round(self.rate, 3), "eta_seconds": self._eta()}
        if not await self._in_database(self.ours().update, **facts):
            raise Lost

    def ours(self) -> Any:
        """The row, as long as the experiment is active and has not passed to another carrier."""
        return Experiment.objects.active().filter(pk=self.experiment.pk, carrier=self.experiment.carrier)

    @property
    def rate(self) -> float:
        """New points per second."""
        return self._fresh / max(0.001, time.monotonic() - self._began)

    def _eta(self) -> float | None:
        left = self._total - self._counted
        return round(left / self.rate, 1) if self._fresh >= 4 and left >= 0 else None

    def _note_waiting(self, why: str) -> None:
        self._note = f"waiting for the model: {why}"

    def _count(self, points: int) -> None:
        self._counted += points

    # ---- asking once ----

    async def _once(
        self, digest: str, known: dict[str, Any], ask: Callable[[], Awaitable[dict[str, Any]]], kind: str
    ) -> dict[str, Any]:
        """The answer of the cache, of whoever has asked the same a moment ago, or of the model."""
        if digest in known:
            return known[digest][1]
        if digest not in self._coming:
            self._coming[digest] = asyncio.ensure_future(self._answered(digest, ask, kind))
        return await asyncio.shield(self._coming[digest])

    async def _answered(self, digest: str, ask: Callable[[], Awaitable[dict[str, Any]]], kind: str) -> dict[str, Any]:
        answer = await ask()
        await self._written(digest, kind, answer)
        self._fresh += kind == "complete"
        return answer

    async def _write_one(self, ask: Ask) -> dict[str, Any]:
        async with self._places:
            return await self._asking.complete(ask)

    async def _in_jobs(self, missing: dict[str, Any], ask: Callable[[list[Any]], Any], kind: str) -> None:
        async def one(some: list[str]) -> None:
            async with self._jobs:
                answers = await ask([missing[digest] for digest in some])
            await all_of(self._written(d, kind, answer) for d, answer in zip(some, answers, strict=True))

        wanted = list(missing)
        await all_of(one(wanted[start : start + ITEMS_PER_JOB]) for start in range(0, len(wanted), ITEMS_PER_JOB))

    # ---- the database ----

    async def _written(self, digest: str, kind: str, answer: dict[str, Any]) -> None:
        """Returns when the answer is in the database."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unwritten.append((digest, kind, answer, future))
        if len(self._unwritten) == 1:
            self._writing = asyncio.ensure_future(self._write_soon())
        await future

    async def _write_soon(self) -> None:
        await asyncio.sleep(WRITE_SECONDS)
        gathered, self._unwritten = self._unwritten, []
        try:
            ours = await self._in_database(self._write, [(d, kind, answer) for d, kind, answer, _ in gathered])
            error: BaseException | None = None if ours else Lost()
        except Exception as trouble:
            error = trouble
        for *_, future in gathered:
            if future.done():
                continue
            if error:
                future.set_exception(error)
            else:
                future.set_result(None)

    @transaction.atomic
    def _write(self, answers: list[tuple[str, str, dict[str, Any]]]) -> bool:
        completions = [answer for _, kind, answer in answers if kind == "complete"]
        ours = self.ours().update(
            heartbeat_at=Now(),
            prompt_tokens=F("prompt_tokens") + sum(_read_tokens(kind, a) for _, kind, a in answers),
            completion_tokens=F("completion_tokens") + sum(a["tokens"] for a in completions),
        )
        owner = self.experiment.owner_id
        rows = [Measurement(owner_id=owner, digest=digest, kind=kind, result=a) for digest, kind, a in answers]
        if ours:
            Measurement.objects.bulk_create(rows, ignore_conflicts=True)
        return bool(ours)

    async def _known(self, wanted: Sequence[str]) -> dict[str, tuple[int, dict[str, Any]]]:
        return await self._in_database(self._look_up, list(dict.fromkeys(wanted)))

    def _look_up(self, wanted: list[str]) -> dict[str, tuple[int, dict[str, Any]]]:
        found: dict[str, tuple[int, dict[str, Any]]] = {}
        for start in range(0, len(wanted), 500):
            rows = Measurement.objects.filter(owner=self.experiment.owner_id, digest__in=wanted[start : start + 500])
            found |= {digest: (pk, result) for pk, digest, result in rows.values_list("pk", "digest", "result")}
        return found

    async def _point_at(self, asks: Sequence[Ask], wanted: Sequence[str], known: dict[str, Any]) -> None:
        points = [
            Point(
                experiment_id=self.experiment.pk, group=ask.group, place=ask.place, prompt=ask.prompt.text,
                measurement_id=known[digest][0],
            )
            for ask, digest in zip(asks, wanted, strict=True) if digest in known
        ]  # fmt: skip
        if points:
            await self._in_database(Point.objects.bulk_create, points, ignore_conflicts=True)

    @transaction.atomic
    def _keep(self, group: str, scores: list[dict[str, Any]]) -> None:
        points = list(Point.objects.filter(experiment=self.experiment.pk, group=group))
        for point in points:
            point.scores = scores[point.place]
        Point.objects.bulk_update(points, ["scores"])

    async def _in_database(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Again and again while the database is locked or restarting."""
        run = database_sync_to_async(work, thread_sensitive=False, executor=_writer)
        for pause in DATABASE_PAUSES:
            try:
                return await run(*args, **kwargs)
            except BUSY_DATABASE:
                await asyncio.sleep(pause)
        return await run(*args, **kwargs)


def _read_tokens(kind: str, answer: dict[str, Any]) -> int:
    """Tokens that the model read for an answer; of what it judged, those that were foretold."""
    found = answer["prompt_tokens"] if kind == "complete" else answer["tokens"]
    return sum(found) if isinstance(found, list) else int(found)


def _likelihood(result: dict[str, Any]) -> Likelihood:
    return Likelihood(tuple(result["logprobs"]), tuple(result["tokens"]))
