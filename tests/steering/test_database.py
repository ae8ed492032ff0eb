"""The database's thread and transactions that several share, and rows that are inserted without Django's own way."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Model
from django.utils import timezone

from steering import database
from steering.access.models import LedgerEntry
from steering.accounts.models import User
from steering.database import AT_ONCE, in_database, in_transaction
from steering.inserting import insert
from steering.playground.models import LaneOutput, Run

pytestmark = pytest.mark.django_db(transaction=True)


def run_of(person: User, **facts: Any) -> Run:
    made = {"title": "Ünï", "input": "two\nlines % %s", "settings": {"mode": "chat", "n": [1, None]}}
    return Run(owner=person, idem=uuid.uuid4(), **(made | facts))


def together(*works: Callable[[], Any]) -> list[Any]:
    """What each returns or raises, all having come while the thread was busy."""

    async def asked() -> list[Any]:
        go = threading.Event()
        first = asyncio.create_task(in_database(go.wait))
        others = [asyncio.create_task(in_transaction(work)) for work in works]
        await asyncio.sleep(0)  # now all of them wait
        go.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)

    return asyncio.run(asked())


# ---- transactions ----


def test_those_who_come_together_share_a_transaction() -> None:
    happened: list[tuple[str, int]] = []

    def work(number: int) -> int:
        happened.append(("made", number))
        transaction.on_commit(lambda: happened.append(("kept", number)))
        return number

    count = AT_ONCE + 2
    assert together(*[lambda i=i: work(i) for i in range(count)]) == list(range(count))  # type: ignore[misc]
    size = AT_ONCE if connection.vendor == "sqlite" else 1
    parts = [range(at, min(at + size, count)) for at in range(0, count, size)]
    assert happened == [(what, i) for part in parts for what in ("made", "kept") for i in part]


def test_one_that_raises_is_undone_alone(person: User) -> None:
    def failing() -> None:
        insert(run_of(person, title="undone"))
        raise LookupError("not this one")

    kept, failed, also = together(
        lambda: insert(run_of(person, title="first")), failing, lambda: insert(run_of(person, title="last"))
    )
    assert kept is None and also is None
    assert isinstance(failed, LookupError)
    assert set(Run.objects.values_list("title", flat=True)) == {"first", "last"}


def test_one_that_cannot_be_committed_does_not_take_others_with_it(person: User) -> None:
    stranger = User(pk=person.pk + 1000)  # who is not in the database, which is noticed at the commit

    kept, failed, also = together(
        lambda: insert(run_of(person, title="first")),
        lambda: insert(run_of(stranger, title="nobody's")),
        lambda: insert(run_of(person, title="last")),
    )
    assert kept is None and also is None
    assert isinstance(failed, IntegrityError)
    assert set(Run.objects.values_list("title", flat=True)) == {"first", "last"}


def test_who_leaves_before_it_is_their_turn_changes_nothing(person: User) -> None:
    async def leave() -> None:
        go = threading.Event()
        first = asyncio.create_task(in_database(go.wait))
        leaving = asyncio.create_task(in_transaction(insert, run_of(person, title="left")))
        staying = asyncio.create_task(in_transaction(insert, run_of(person, title="stayed")))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, staying)

    asyncio.run(leave())
    assert list(Run.objects.values_list("title", flat=True)) == ["stayed"]


def test_a_loop_that_is_gone_is_no_trouble_for_the_next(person: User) -> None:
    go = threading.Event()

    async def begin() -> None:
        waiting.append(asyncio.create_task(in_database(go.wait)))
        waiting.append(asyncio.create_task(in_transaction(insert, run_of(person))))
        await asyncio.sleep(0)

    waiting: list[asyncio.Task[Any]] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    go.set()
    assert together(lambda: 1) == [1]


def test_who_asks_when_the_process_ends_is_refused_rather_than_left_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = ThreadPoolExecutor(max_workers=1)
    ended.shutdown()
    monkeypatch.setattr(database, "_thread", ended)

    async def ask() -> list[Any]:
        async with asyncio.timeout(10):
            return await asyncio.gather(*(in_transaction(int) for _ in range(3)), return_exceptions=True)

    assert [type(refused) for refused in asyncio.run(ask())] == [RuntimeError] * 3
    monkeypatch.undo()
    assert together(lambda: 1) == [1]


# ---- rows ----


def rows(person: User) -> list[Callable[[], Model]]:
    parent = run_of(person)
    parent.save()
    facts = {"state": "failed", "ended_seq": 3, "finished_at": timezone.now(), "parent": parent, "turn": parent.turn}
    ledger = {"work": "run:x", "kind": "generate", "model": "m", "source": "test", "reserved_tokens": 2**40}
    return [
        lambda: run_of(person),
        lambda: run_of(person, **facts),
        lambda: LaneOutput(run=parent, key="A", text="é", tokens=[{"seq": 1, "lp": -0.5}], started={"t": "started"}),
        lambda: LedgerEntry(user=person, subjects=["user:1", "key:2"], **ledger),
        lambda: LedgerEntry(user=None, parts="A,B", ended_at=timezone.now(), **ledger),
    ]


def values(row: Model) -> dict[str, Any]:
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


@pytest.mark.parametrize("which", range(5))
def test_a_row_that_is_inserted_is_the_row_that_django_saves(person: User, which: int) -> None:
    make = rows(person)[which]
    ours, djangos = make(), make()
    insert(ours)
    stored = type(ours)._default_manager.get(pk=ours.pk)
    assert values(stored) == values(ours)
    stored.delete()
    djangos.save(force_insert=True)
    found = type(djangos)._default_manager.get(pk=djangos.pk)
    drawn = {"id", "idem", "turn", "created_at", "heartbeat_at", "ended_at", "finished_at"}
    alike = [{name: value for name, value in values(row).items() if name not in drawn} for row in (stored, found)]
    assert alike[0] == alike[1]
    assert not ours._state.adding and ours._state.db == djangos._state.db


def test_an_inserted_row_can_be_saved_again(person: User) -> None:
    run = run_of(person)
    insert(run)
    run.title = "another"
    run.save()
    assert [each.title for each in Run.objects.all()] == ["another"]


def test_what_is_there_already_is_refused(person: User) -> None:
    run = run_of(person)
    insert(run)
    with pytest.raises(IntegrityError):
        insert(Run(owner=person, idem=run.idem, title="", input="", settings={}))
