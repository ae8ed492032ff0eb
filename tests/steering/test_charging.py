"""What runs and jobs reserve, settle and give back, and what happens to reservations whose process is gone."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from channels.db import database_sync_to_async
from django.core.management import call_command
from django.utils import timezone

from inference.types import CheckPairs, Failed, Pair
from steering import gateway, shared
from steering.access import admission
from steering.access.denied import Denied
from steering.access.keys import create_key, revoke_key, rotate_key
from steering.access.models import Carrier, Counter, LedgerEntry, Limit
from steering.access.principal import Principal
from steering.access.recovery import reservations_recover, reservations_sweep
from steering.accounts.models import User
from steering.jobs import kinds
from steering.jobs import runner as jobs
from steering.jobs.charging import refund_ended_jobs
from steering.jobs.models import Job
from steering.playground import live
from steering.playground import runner as runs
from steering.playground.messages import RunMessage
from steering.playground.models import LaneOutput, Run
from steering.playground.recovery import runs_recover
from steering.playground.schema import Lane
from tests.fake_inference import MODEL, FakeInference
from tests.steering.endings import ended
from tests.steering.play import BreakingInference, Socket, a_run, keep_vector, steered
from tests.steering.test_jobs import plays, until_job
from tests.steering.test_playground_socket import until_quiet
from tests.waiting import auntil

pytestmark = pytest.mark.django_db(transaction=True)
in_db = database_sync_to_async


@pytest.fixture(autouse=True)
def fake(fake_inference: FakeInference) -> Iterator[FakeInference]:
    yield fake_inference
    gateway.call(until_quiet(), timeout=20)


def entry(work: str = "") -> LedgerEntry:
    return LedgerEntry.objects.get(**({"work": work} if work else {}))


def running(person: User) -> int:
    return Counter.objects.get(pk=f"user:{person.pk}").running


def limit(person: User, **limits: int) -> None:
    Limit.objects.update_or_create(user=person, defaults=limits)


async def until_ended(work: str) -> LedgerEntry:
    async def ended() -> LedgerEntry | None:
        found: LedgerEntry = await in_db(entry)(work)
        return found if found.state != "open" else None

    return await auntil(ended)


# ---- runs ----


async def test_a_run_reserves_all_its_lanes_and_settles_to_what_they_used(person: User) -> None:
    async with Socket(person) as socket:
        accepted = await socket.run(a_run())
        await socket.events_to_end()
    row = await in_db(entry)(f"run:{accepted['run']}")
    assert (row.state, row.prompt_tokens, row.completion_tokens) == ("settled", 24, 40)
    assert (row.kind, row.source, row.model, row.parts) == ("generate", "playground", MODEL, "A,B")
    assert row.reserved_tokens >= row.used_tokens
    assert await in_db(running)(person) == 0


async def test_a_run_above_a_limit_is_refused_with_a_time(person: User) -> None:
    await in_db(limit)(person, tokens_per_day=10)
    async with Socket(person) as socket:
        await socket.say({"t": "run", "idem": str(uuid.uuid4()), "settings": a_run().to_wire()})
        error = await socket.hear("error")
        assert error["code"] == "quota_spent" and "10 a day" in error["message"]
        await in_db(limit)(person, tokens_per_day=None, requests_per_minute=1)
        await socket.run(a_run())
        await socket.events_to_end()
        await socket.say({"t": "run", "idem": str(uuid.uuid4()), "settings": a_run().to_wire()})
        error = await socket.hear("error")
        assert error["code"] == "rate_limited" and 0 < error["retry_after"] <= 60
    assert await Run.objects.acount() == 1


async def test_a_place_is_free_when_the_page_hears_that_the_run_ended(person: User) -> None:
    await in_db(limit)(person, concurrent_runs=1)
    async with Socket(person) as socket:
        for _ in range(3):
            await socket.run(a_run(Lane("A", "Base")))
            await socket.events_to_end()


async def test_the_same_press_twice_is_charged_once(person: User) -> None:
    message = {"t": "run", "idem": str(uuid.uuid4()), "settings": a_run().to_wire()}
    async with Socket(person) as socket:
        for _ in range(2):
            await socket.say(message)
            await socket.hear("accepted")
        await socket.events_to_end()
    assert await LedgerEntry.objects.acount() == 1


async def test_only_lanes_that_ran_again_are_charged(person: User) -> None:
    async with Socket(person) as socket:
        first = await socket.run(a_run())
        await socket.events_to_end()
        again = await socket.run(a_run(), version_of=first["run"], lanes=["B"])
        await socket.events_until(lambda e: e["t"] == "run_finished")
    row = await until_ended(f"run:{again['run']}")
    assert (row.parts, row.prompt_tokens, row.completion_tokens) == ("B", 12, 20)


async def test_a_lane_that_failed_costs_nothing(person: User) -> None:
    gateway.set_inference(BreakingInference(delay=0.001))
    vector = await in_db(keep_vector)(person)
    async with Socket(person) as socket:
        accepted = await socket.run(a_run(Lane("A", "Base"), steered(vector)))
        await socket.events_to_end()
    row = await in_db(entry)(f"run:{accepted['run']}")
    assert (row.state, row.prompt_tokens, row.completion_tokens) == ("settled", 12, 20)


async def test_a_run_that_fails_is_refunded(person: User, fake: FakeInference) -> None:
    fake.loaded = {}
    async with Socket(person) as socket:
        accepted = await socket.run(a_run())
        await socket.events_to_end()
    row = await in_db(entry)(f"run:{accepted['run']}")
    assert (row.state, row.used_tokens) == ("refunded", 0)


async def test_a_run_that_is_deleted_while_it_writes_is_settled(person: User, fake: FakeInference) -> None:
    fake.delay = 0.2
    async with Socket(person) as socket:
        accepted = await socket.run(a_run(Lane("A", "Base")))
        await socket.events_until(lambda event: event["t"] == "token")
        await Run.objects.filter(pk=accepted["run"]).adelete()
    row = await until_ended(f"run:{accepted['run']}")
    assert row.state == "settled" and 0 < row.completion_tokens < 20


async def test_a_run_stops_when_its_key_is_revoked(
    person: User, fake: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "CHECKPOINT_SECONDS", 0.1)
    fake.delay = 1.5  # 20 words would take half a minute
    key, _ = await in_db(create_key)(owner=person, name="k", scopes=["generate"])
    message = RunMessage(idem=str(uuid.uuid4()), settings=a_run().to_wire())
    start = runs.run_start(person, message, who=Principal(person, key), source="rest")
    run = await gateway.joined(start)
    await in_db(revoke_key)(key)
    row = await until_ended(f"run:{run.pk}")
    assert (row.key_id, row.source) == (key.pk, "rest")
    state = await in_db(Run.objects.values_list("state", flat=True).get)(pk=run.pk)
    assert state == "cancelled"


async def test_a_run_with_a_key_is_held_to_the_keys_models(person: User) -> None:
    key, _ = await in_db(create_key)(owner=person, name="k", scopes=["generate"], models=["org/other"])
    message = RunMessage(idem=str(uuid.uuid4()), settings=a_run().to_wire())
    with pytest.raises(Denied) as caught:
        await gateway.joined(runs.run_start(person, message, who=Principal(person, key)))
    assert caught.value.code == "model_not_allowed"


async def test_a_run_that_was_interrupted_is_settled_to_what_it_had_written(person: User) -> None:
    def leave() -> Run:
        run = Run.objects.create(owner=person, idem=uuid.uuid4(), title="t", input="i", settings=a_run().to_wire())
        tokens = [{"seq": n, "id": n, "s": "x", "lp": None, "top": []} for n in (1, 2, 3)]
        started = {"t": "started", "lane": "A", "prompt_tokens": 7, "seed": 1, "seq": 0}
        LaneOutput.objects.create(run=run, key="A", text="xxx", tokens=tokens, started=started)
        LaneOutput.objects.create(run=run, key="B")
        admission.reserve(
            Principal(person), work=f"run:{run.pk}", kind="generate", model="m", tokens=99, source="p", parts="A,B"
        )
        return run

    run = await in_db(leave)()
    await in_db(runs_recover)()
    row = await in_db(entry)(f"run:{run.pk}")
    assert (row.state, row.prompt_tokens, row.completion_tokens) == ("settled", 7, 3)


async def test_previews_are_not_counted_but_end_with_the_days_tokens(person: User) -> None:
    settings = a_run().to_wire()
    async with Socket(person) as socket:
        await socket.say({"t": "preview", "nonce": 1, "lane": "A", "settings": settings})
        while not (await socket.hear("preview")).get("done"):
            pass
        await in_db(limit)(person, tokens_per_day=0)
        await socket.say({"t": "preview", "nonce": 2, "lane": "A", "settings": settings})
        assert (await socket.hear("error"))["code"] == "quota_spent"
    assert not await LedgerEntry.objects.aexists()


# ---- jobs ----


def start(person: User, **more: Any) -> Job:
    request = CheckPairs(id="", pairs=(Pair("yes", "no"),))
    return jobs.job_start(owner=person, kind="check_pairs", title="Check", request=request, **more)


def test_a_job_is_settled_to_what_its_kind_says_it_read(
    person: User, fake: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep(job: Job, payload: dict[str, Any]) -> None:
        job.used_tokens = 123

    monkeypatch.setitem(kinds._keepers, "check_pairs", keep)
    job = start(person, tokens=1000, source="vectors")
    held = entry(f"job:{job.pk}")
    assert (held.state, held.reserved_tokens, held.carrier, held.kind) == ("open", 1000, "", "job")
    assert ended(job).state == "succeeded"
    held.refresh_from_db()
    assert (held.state, held.used_tokens, running(person)) == ("settled", 123, 0)


def test_a_job_that_failed_or_was_cancelled_is_refunded(person: User, fake: FakeInference) -> None:
    fake.delay = 0.3
    job = until_job(start(person, tokens=50), lambda j: j.state == "running")
    jobs.job_cancel(job)
    assert entry(f"job:{job.pk}").state == "refunded"
    fake.delay = 0.01
    plays(fake, lambda id: Failed(id, 0, "invalid_request", "bad", "It is bad."))
    job = ended(start(person))
    assert (job.state, entry(f"job:{job.pk}").state, running(person)) == ("failed", "refunded", 0)


def test_a_job_above_a_limit_is_not_begun(person: User) -> None:
    limit(person, concurrent_runs=0)
    with pytest.raises(Denied, match="0 runs at once"):
        start(person)
    assert not Job.objects.exists() and not LedgerEntry.objects.exists()


def test_a_page_that_starts_a_job_above_a_limit_says_so(person: User, browser_of: Any) -> None:
    from steering.datasets.library import dataset_create

    limit(person, requests_per_minute=0)
    dataset = dataset_create(
        owner=person, name="d", description="", rows=[Pair(f"a{n}", f"b{n}", "p") for n in range(4)]
    )
    form = {"dataset": dataset.pk, "method": "mean_difference", "pooling": "mean", "span": "answer", "name": ""}
    response = browser_of(person).post("/vectors/build/", form)
    assert response.status_code == 429
    assert "You have reached a limit" in response.content.decode()


@pytest.mark.parametrize("end", [revoke_key, rotate_key])
def test_what_a_key_had_started_ends_with_it(person: User, fake: FakeInference, end: Any) -> None:
    fake.delay = 5
    key, _ = create_key(owner=person, name="k", scopes=["jobs"])
    mine, others = start(person, who=Principal(person, key)), start(person)
    end(key)
    mine.refresh_from_db()
    others.refresh_from_db()
    assert (mine.state, others.is_active) == ("cancelled", True)
    assert entry(f"job:{mine.pk}").state == "refunded"
    jobs.job_cancel(others)


def test_a_job_with_a_key_is_held_to_the_keys_models(person: User) -> None:
    key, _ = create_key(owner=person, name="k", scopes=["jobs"], models=["org/other"])
    with pytest.raises(Denied, match="org/other"):
        start(person, who=Principal(person, key))


def test_what_a_deleted_job_held_is_given_back(person: User) -> None:
    admission.reserve(
        Principal(person), work=f"job:{uuid.uuid4()}", kind="job", model="m", tokens=5, source="job", carrier=""
    )
    refund_ended_jobs()
    assert entry().state == "open"  # its row may be about to be saved
    LedgerEntry.objects.update(created_at=timezone.now() - timedelta(minutes=2))
    refund_ended_jobs()
    assert (entry().state, running(person)) == ("refunded", 0)


# ---- processes that are gone ----


def held_by(person: User, carrier: str, minutes: float) -> LedgerEntry:
    held = admission.reserve(
        Principal(person), work=carrier, kind="generate", model="m", tokens=5, source="openai", carrier=carrier
    )
    LedgerEntry.objects.filter(pk=held.id).update(created_at=timezone.now() - timedelta(minutes=minutes))
    return LedgerEntry.objects.get(pk=held.id)


def test_the_sweeper_gives_back_what_gone_processes_held(person: User) -> None:
    limit(person, concurrent_runs=5)
    now = timezone.now()
    for name, silent in (("alive", 1), ("silent", 5 * 60), ("long gone", 3 * 86400)):
        Carrier.objects.create(name=name, heartbeat_at=now - timedelta(seconds=silent))
    for carrier, minutes in (("alive", 600), ("silent", 10), ("never seen", 10), ("just begun", 0), ("", 10)):
        held_by(person, carrier, minutes)
    with pytest.raises(Denied):
        held_by(person, "sixth", 0)
    reservations_sweep()
    states = dict(LedgerEntry.objects.values_list("carrier", "state"))
    assert states == {
        "alive": "open", "just begun": "open", "": "open", "silent": "refunded", "never seen": "refunded",
    }  # fmt: skip
    assert running(person) == 3
    held_by(person, "sixth", 0)
    assert set(Carrier.objects.values_list("name", flat=True)) == {"alive", "silent", shared.PROCESS}


def test_nothing_is_held_for_ever(person: User) -> None:
    Carrier.objects.create(name="alive", heartbeat_at=timezone.now())
    held = held_by(person, "alive", 25 * 60)
    reservations_sweep()
    held.refresh_from_db()
    assert held.state == "refunded"


def test_the_only_server_of_a_folder_begins_with_nothing_held(person: User) -> None:
    held_by(person, "the last process", 0)
    assert reservations_recover() == 1
    assert (entry().state, running(person)) == ("refunded", 0)


# ---- counters ----


def test_counters_are_set_right_by_the_ledger(person: User) -> None:
    first = admission.reserve(Principal(person), work="a", kind="generate", model="m", tokens=50, source="s")
    admission.settle(first.id, prompt_tokens=3, completion_tokens=4)
    admission.reserve(Principal(person), work="b", kind="generate", model="m", tokens=50, source="s")
    said = StringIO()
    call_command("recount", "--check", stdout=said)
    assert "agrees" in said.getvalue()
    Counter.objects.update(running=99, tokens=1)
    with pytest.raises(SystemExit):
        call_command("recount", "--check", stdout=said)
    assert "99 running; the ledger has" in said.getvalue()
    call_command("recount", stdout=said)
    counter = Counter.objects.get()
    assert (counter.tokens, counter.running) == (57, 1)
    Counter.objects.all().delete()
    call_command("recount", stdout=said)
    counter = Counter.objects.get()
    assert (counter.tokens, counter.running) == (57, 1)
