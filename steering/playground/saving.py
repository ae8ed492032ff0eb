"""Checkpoints of runs: those that come together are written in one transaction, in a thread of their own.

Each token is encoded once, not with every checkpoint that follows, and rows are written without the ORM, which would
take longer over them than the database does. All of it but the writing belongs to the gateway's loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import Error as DatabaseTrouble
from django.db import connection, transaction
from django.db.models.functions import Now

from steering.database import keeping_connection
from steering.playground.charging import settle_run
from steering.playground.models import LaneOutput, Run

# A thread of their own: the one that all else of a process shares must not be kept from answering by what runs write.
_writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="run-writes")

GATHER_SECONDS = 0.01


class GrowingText:
    """A list of events as JSON, which grows: what was encoded once is kept."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._count = 0

    def of(self, events: Sequence[dict[str, Any]]) -> str:
        """`events` are those of the last call, and what came since."""
        if len(events) > self._count:
            self._parts.append(json.dumps(events[self._count :])[1:-1])
            self._count = len(events)
        return f"[{', '.join(self._parts)}]"


@dataclass
class RowText:
    """What grows in a row, encoded as far as it is known."""

    tokens: GrowingText = field(default_factory=GrowingText)
    watched: GrowingText = field(default_factory=GrowingText)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What to write of one run, and that it is alive.

    `rows` are (state, text, tokens, watched, started, ended, id) of the lanes that changed, in JSON where the column
    is.
    `ending` are the fields of a run that ends; then, and when the run was ended elsewhere, `outputs` says what all
    lanes used.
    """

    run: UUID
    rows: list[tuple[Any, ...]]
    outputs: list[LaneOutput]
    ending: dict[str, Any] = field(default_factory=dict)


_waiting: list[tuple[Checkpoint, asyncio.Future[bool]]] = []
_writing: set[asyncio.Task[None]] = set()


def row_of(output: LaneOutput, grown: RowText) -> tuple[Any, ...]:
    facts = [None if fact is None else json.dumps(fact) for fact in (output.started, output.ended)]
    lists = grown.tokens.of(output.tokens), grown.watched.of(output.watched)
    return (output.state, output.text, *lists, *facts, output.pk)


async def save(checkpoint: Checkpoint) -> bool:
    """Written when this returns. False, and only what it used is kept, when the run does not run any more.

    Raises DatabaseTrouble.
    """
    future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    if not _waiting:
        task = asyncio.create_task(_write_soon())
        _writing.add(task)
        task.add_done_callback(_writing.discard)
    _waiting.append((checkpoint, future))
    return await future


async def _write_soon() -> None:
    await asyncio.sleep(GATHER_SECONDS)
    gathered = _waiting[:]
    _waiting.clear()
    try:
        kept = await _write([checkpoint for checkpoint, _ in gathered])
    except Exception as error:
        await _write_one_by_one(gathered, error)
    else:
        for checkpoint, future in gathered:
            _answer(future, checkpoint.run in kept)


async def _write_one_by_one(gathered: list[tuple[Checkpoint, asyncio.Future[bool]]], error: Exception) -> None:
    """One that the database refuses must not keep the others from being saved."""
    for checkpoint, future in gathered:
        if len(gathered) > 1 and isinstance(error, DatabaseTrouble):
            try:
                _answer(future, checkpoint.run in await _write([checkpoint]))
                continue
            except Exception as its_own:
                error = its_own
        if not future.done():
            future.set_exception(error)


def _answer(future: asyncio.Future[bool], kept: bool) -> None:
    if not future.done():
        future.set_result(kept)


async def _write(checkpoints: list[Checkpoint]) -> set[UUID]:
    return await asyncio.get_running_loop().run_in_executor(_writer, keeping_connection, _write_now, checkpoints)


def _write_now(checkpoints: Iterable[Checkpoint]) -> set[UUID]:
    """The runs that still were ours to write."""
    checkpoints = sorted(checkpoints, key=lambda checkpoint: checkpoint.run)  # two never wait for each other crosswise
    with transaction.atomic():
        ours = _still_running([checkpoint.run for checkpoint in checkpoints])
        _write_rows([row for checkpoint in checkpoints if checkpoint.run in ours for row in checkpoint.rows])
        for checkpoint in checkpoints:
            if checkpoint.ending and checkpoint.run in ours:
                Run.objects.filter(pk=checkpoint.run).update(**checkpoint.ending)
            if checkpoint.ending or checkpoint.run not in ours:
                settle_run(checkpoint.run, checkpoint.outputs)
    return ours


def _still_running(runs: list[UUID]) -> set[UUID]:
    """Those that run, locked, with a new sign of life."""
    open_runs = Run.objects.running().filter(pk__in=runs).order_by("pk").select_for_update(no_key=True)
    ours = set(open_runs.values_list("pk", flat=True))
    Run.objects.filter(pk__in=ours).update(heartbeat_at=Now())
    return ours


def _write_rows(rows: list[tuple[Any, ...]]) -> None:
    if rows:
        columns = ", ".join(f"{name} = %s" for name in ("state", "text", "tokens", "watched", "started", "ended"))
        with connection.cursor() as cursor:
            sql = f"UPDATE {LaneOutput._meta.db_table} SET {columns} WHERE id = %s"  # noqa: S608  names of ours alone
            cursor.executemany(sql, rows)
