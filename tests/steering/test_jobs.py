from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from inference.errors import Unavailable
from inference.types import CheckPairs, Event, Failed, Pair, Progress, Result
from steering import gateway
from steering.accounts.models import User
from steering.jobs import kinds, queue, runner
from steering.jobs.models import Job
from steering.jobs.templatetags.durations import duration
from tests.fake_inference import FakeInference
from tests.steering.endings import ended
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

REQUEST = CheckPairs(id="", pairs=(Pair("yes", "no"),))


@pytest.fixture(autouse=True)
def ends_with_its_test(
    transactional_db: None, fake_inference: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """What a test has begun asks no model of the next test, and writes nothing into it."""
    begun: list[concurrent.futures.Future[Any]] = []
    spawn = gateway.spawn
    monkeypatch.setattr(gateway, "spawn", lambda coro: begun.append(it := spawn(coro)) or it)
    yield
    for job in Job.objects.active():
        runner.job_cancel(job)
    for left in concurrent.futures.wait(begun, timeout=3).not_done:
        left.cancel()


def start(owner: User, **kwargs: Any) -> Job:
    return runner.job_start(owner=owner, kind="check_pairs", title="Check", request=REQUEST, **kwargs)


@pytest.fixture
def keeps(monkeypatch: pytest.MonkeyPatch) -> Callable[[kinds.OnResult], None]:
    """keeps(function) lets that function keep what the jobs of this test find."""
    return lambda keep: monkeypatch.setitem(kinds._keepers, "check_pairs", keep)


def until_job(job: Job, condition: Callable[[Job], bool]) -> Job:
    until(lambda: condition(Job.objects.get(pk=job.pk)))
    job.refresh_from_db()
    return job


def plays(fake: FakeInference, *events: Callable[[str], Event]) -> None:
    """Let the fake's jobs yield these events; each is given the job's id."""

    async def run(job: CheckPairs) -> AsyncIterator[Event]:
        for event in events:
            await asyncio.sleep(fake.delay)
            yield event(job.id)

    fake.run = run  # type: ignore[method-assign, assignment]


def test_a_job_succeeds_and_keeps_what_it_found(person: User, fake_inference: FakeInference, keeps: Any) -> None:
    seen: list[dict[str, Any]] = []
    fake_inference.payload = {"merged": [3]}

    def keep(job: Job, payload: dict[str, Any]) -> None:
        seen.append(payload)
        job.result_url = "/somewhere/"

    keeps(keep)
    job = ended(start(person))
    assert (job.state, job.result, job.result_url) == ("succeeded", {"merged": [3]}, "/somewhere/")
    assert seen == [{"merged": [3]}]
    assert job.started_at <= job.finished_at


def test_the_row_remembers_the_request_without_its_pairs(person: User, fake_inference: FakeInference) -> None:
    job = start(person, about={"dataset": "abc"})
    assert job.request == {"id": "", "pairs": 1, "model": "", "kind": "check_pairs", "dataset": "abc"}
    ended(job)
    assert fake_inference.jobs[0].id == str(job.pk)


def test_progress_reaches_the_row(person: User, fake_inference: FakeInference) -> None:
    fake_inference.delay = 0.3
    job = until_job(start(person), lambda j: j.done >= 2)
    assert (job.state, job.total, job.note) == ("running", 5, "Reading activations")
    assert job.eta_seconds
    runner.job_cancel(job)


def test_progress_is_written_at_most_four_times_a_second(
    person: User, fake_inference: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[float] = []
    monkeypatch.setattr(runner, "_write_progress", lambda job, progress: writes.append(time.monotonic()) or True)
    fake_inference.delay = 0.005
    plays(
        fake_inference,
        *(lambda id, i=i: Progress(id, i, i, 100) for i in range(100)),
        lambda id: Result(id, 100, {}),
    )
    begun = time.monotonic()
    assert ended(start(person)).state == "succeeded"
    assert len(writes) <= 1 + 4 * (time.monotonic() - begun)


def test_a_job_waits_for_the_model_to_load(
    person: User, fake_inference: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LOADING_SECONDS", 0.02)
    fake_inference.state = "loading"
    job = until_job(start(person), lambda j: bool(j.note))
    assert (job.state, job.note) == ("queued", "the model is still loading")
    fake_inference.state = "ready"
    assert ended(job).state == "succeeded"


def test_a_failure_keeps_its_code_and_cure(person: User, fake_inference: FakeInference) -> None:
    plays(
        fake_inference, lambda id: Failed(id, 0, "invalid_request", "pair_too_long", "Pair 3 is too long. Shorten it.")
    )
    job = ended(start(person))
    assert (job.state, job.error_code) == ("failed", "pair_too_long")
    assert job.error_message == "Pair 3 is too long. Shorten it."


def test_an_error_that_is_raised_fails_the_job_with_its_code(person: User, fake_inference: FakeInference) -> None:
    def refuse(id: str) -> Event:
        raise Unavailable("model_not_loaded", "The model failed to load. Look at Models.")

    plays(fake_inference, refuse)
    assert ended(start(person)).error_code == "model_not_loaded"


def test_a_crash_fails_the_job_with_a_sentence(person: User, fake_inference: FakeInference) -> None:
    plays(fake_inference, lambda id: 1 / 0)  # type: ignore[arg-type, return-value]
    job = ended(start(person))
    assert job.error_code == "job_crashed"
    assert "Start it again" in job.error_message


def test_a_stream_that_just_ends_fails_the_job(person: User, fake_inference: FakeInference) -> None:
    plays(fake_inference, lambda id: Progress(id, 0, 1, 2))
    assert ended(start(person)).error_code == "no_result"


def test_a_result_that_cannot_be_kept_fails_the_job_and_leaves_nothing_behind(
    person: User, fake_inference: FakeInference, keeps: Any
) -> None:
    def keep(job: Job, payload: dict[str, Any]) -> None:
        User.objects.create_user("half@example.org")
        raise RuntimeError("the rest went wrong")

    keeps(keep)
    job = ended(start(person))
    assert (job.state, job.error_code) == ("failed", "result_not_kept")
    assert not User.objects.filter(email="half@example.org").exists()


def test_a_busy_database_does_not_lose_the_ending(
    person: User, fake_inference: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import OperationalError

    real, failures = runner._end, [OperationalError("database is locked")] * 2

    def end(*args: Any, **kwargs: Any) -> bool:
        if failures:
            raise failures.pop()
        return real(*args, **kwargs)

    monkeypatch.setattr(runner, "_end", end)
    monkeypatch.setattr(runner, "BUSY_RETRY_SECONDS", (0.01, 0.01, 0.01))
    assert ended(start(person)).state == "succeeded"


def test_cancel_ends_the_job_at_once_and_stops_the_work(person: User, fake_inference: FakeInference) -> None:
    fake_inference.delay = 0.3
    job = until_job(start(person), lambda j: j.state == "running")
    assert runner.job_cancel(job)
    job.refresh_from_db()
    assert job.state == "cancelled"
    time.sleep(0.1)
    assert str(job.pk) in fake_inference.cancelled


def test_cancelling_twice_changes_nothing(person: User, fake_inference: FakeInference) -> None:
    fake_inference.delay = 0.3
    job = start(person)
    assert [runner.job_cancel(job), runner.job_cancel(job)] == [True, False]


def test_a_result_after_a_cancel_is_dropped(person: User, fake_inference: FakeInference, keeps: Any) -> None:
    kept: list[Any] = []

    def cancel_then_result(id: str) -> Event:
        Job.objects.filter(pk=id).update(state="cancelled", finished_at=timezone.now())
        return Result(id, 0, {"late": True})

    async def run(job: CheckPairs) -> AsyncIterator[Event]:
        yield await asyncio.to_thread(cancel_then_result, job.id)

    fake_inference.run = run  # type: ignore[method-assign, assignment]
    keeps(lambda job, payload: kept.append(payload))
    job = start(person)
    ended(job)
    time.sleep(0.1)
    job.refresh_from_db()
    assert (job.state, job.result, kept) == ("cancelled", {}, [])


def queued(owner: User) -> Job:
    """A job as a web process leaves it for the web workers."""
    return Job.objects.create(owner=owner, kind="check_pairs", title="Check", work=REQUEST.to_wire())


def test_a_message_that_comes_twice_runs_the_job_once(person: User, fake_inference: FakeInference) -> None:
    job = queued(person)

    async def twice() -> None:
        await asyncio.gather(runner.job_carry(job.pk), runner.job_carry(job.pk))

    gateway.call(twice())
    job.refresh_from_db()
    assert (job.state, len(fake_inference.jobs)) == ("succeeded", 1)


def test_a_process_that_was_taken_for_dead_lets_go_though_it_gets_the_job_again(
    person: User, fake_inference: FakeInference, keeps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "BEAT_SECONDS", 0.05)
    job, ends, kept = queued(person), [], []

    async def run(request: CheckPairs) -> AsyncIterator[Event]:
        nth = len(fake_inference.jobs)
        fake_inference.jobs.append(request)
        try:
            while nth == 0 or not ends:
                await asyncio.sleep(0.02)
        finally:
            ends.append(nth)
        yield Result(request.id, 0, {"of": nth})

    async def carry_twice() -> None:
        first = asyncio.create_task(runner.job_carry(job.pk))
        while not fake_inference.jobs:
            await asyncio.sleep(0.01)
        await Job.objects.filter(pk=job.pk).aupdate(carrier="")  # as the sweeper does
        await runner.job_carry(job.pk)
        await first

    fake_inference.run = run  # type: ignore[method-assign, assignment]
    keeps(lambda job, payload: kept.append(payload))
    gateway.call(carry_twice())
    job.refresh_from_db()
    assert (job.state, ends, kept) == ("succeeded", [0, 1], [{"of": 1}])


def test_web_workers_look_for_a_redis_that_went_away_every_second(settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    waits: list[float] = []
    with pytest.raises(queue.TROUBLE):
        queue.app.__wrapped__().connection_for_read().ensure_connection(
            lambda error, seconds: waits.append(seconds), max_retries=3
        )
    assert max(waits) <= 1


def test_jobs_of_the_last_process_are_failed_with_a_cure(person: User) -> None:
    job = Job.objects.create(owner=person, kind="x", title="Old", state="running")
    done = Job.objects.create(owner=person, kind="x", title="Done", state="succeeded", finished_at=timezone.now())
    assert runner.jobs_fail_interrupted() == 1
    job.refresh_from_db()
    done.refresh_from_db()
    assert (job.state, job.error_code, done.state) == ("failed", "restarted", "succeeded")
    assert "Start it again" in job.error_message


def test_pages_show_running_and_ended_jobs(person: User, browser_of: Any, fake_inference: FakeInference) -> None:
    Job.objects.create(owner=person, kind="x", title="Building calm", state="running", done=3, total=9, eta_seconds=4)
    Job.objects.create(
        owner=person,
        kind="x",
        title="Building brief",
        state="failed",
        error_code="pair_too_long",
        error_message="Pair 3 is too long. Shorten it.",
        finished_at=timezone.now(),
    )
    page = browser_of(person).get(reverse("jobs:list")).content.decode()
    assert "Building calm" in page
    assert "about 4.0 s left" in page
    assert "Pair 3 is too long" in page


def test_an_empty_list_says_that_nothing_is_running(
    person: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    assert "Nothing is running" in browser_of(person).get(reverse("jobs:list")).content.decode()


def test_a_failed_job_shows_code_message_and_id(person: User, browser_of: Any, fake_inference: FakeInference) -> None:
    job = Job.objects.create(
        owner=person, kind="x", title="T", state="failed", error_code="disk_full", error_message="Free some space."
    )
    page = browser_of(person).get(job.get_absolute_url()).content.decode()
    assert all(text in page for text in ("disk_full", "Free some space.", str(job.pk)))


def test_two_tabs_may_cancel(person: User, browser_of: Any, fake_inference: FakeInference) -> None:
    job = Job.objects.create(owner=person, kind="x", title="T", state="running")
    url, browser = reverse("jobs:cancel", args=[job.pk]), browser_of(person)
    answers = [browser.post(url, headers={"accept": "application/json"}).json()["state"] for _ in range(2)]
    assert answers == ["cancelled", "cancelled"]


def test_cancel_does_not_send_the_browser_to_another_host(
    person: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    job = Job.objects.create(owner=person, kind="x", title="T", state="running")
    answer = browser_of(person).post(reverse("jobs:cancel", args=[job.pk]), {"next": "https://elsewhere.example/"})
    assert answer["Location"] == job.get_absolute_url()


@pytest.mark.parametrize(("name", "method"), [("detail", "get"), ("status", "get"), ("cancel", "post")])
def test_strangers_get_404(
    name: str, method: str, person: User, stranger: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    job = Job.objects.create(owner=person, kind="x", title="T", state="running")
    assert getattr(browser_of(stranger), method)(reverse(f"jobs:{name}", args=[job.pk])).status_code == 404
    job.refresh_from_db()
    assert job.state == "running"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (3.84, "3.8 s"), (42, "42 s"), (125, "2 min 5 s"), (4320, "1 h 12 min")]
)
def test_durations_read_as_people_say_them(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
