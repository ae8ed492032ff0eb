"""Runs of policies: carried by jobs, charged, read as timelines, repeated, evaluated, tuned."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from inference.errors import InvalidRequest
from inference.types import Finished, GenerationRequest, Receipt, Started, Token, Usage
from steering import gateway
from steering.access.denied import Denied
from steering.access.models import LedgerEntry, Limit
from steering.access.principal import Principal
from steering.accounts.models import User
from steering.jobs.kinds import is_recipe, request_of
from steering.jobs.models import Job
from steering.jobs.runner import job_carry, jobs_fail_interrupted
from steering.policies import library, starting
from steering.policies.chosen import choose, of_entry, of_stored
from steering.policies.models import PolicyRun, StoredPolicy
from steering.policies.reading import reading_of, timeline_of
from steering.policies.running import run_now
from steering.policies.starters import load_starter_policies
from steering.policies.work import PolicyWork
from tests.fake_inference import MODEL, FakeInference
from tests.steering.endings import settled
from tests.steering.play import keep_vector
from tests.steering.policies import CHECKED, PLAIN, SERVED, a_run, keep_policy
from tests.steering.vector_files import file_of, make_vector
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


class Scripted(FakeInference):
    """Writes what it is told, one text after the other, a token per word; then the last one again."""

    def __init__(self, *texts: str):
        super().__init__(delay=0.0)
        self.texts = list(texts)
        self.hold = threading.Event()
        self.hold.set()

    async def _write(self, request: GenerationRequest) -> Any:
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        words = text.split(" ")[: request.sampling.max_tokens]
        yield Started(request.id, 0, prompt_tokens=12, seed=request.sampling.seed or 0)
        while not self.hold.is_set():
            await asyncio.sleep(0.01)
            if request.id in self.cancelled:
                break
        for seq, word in enumerate(words, 1):
            yield Token(request.id, seq, 100 + seq, word + (" " if seq < len(words) else ""), logprob=-0.1)
        applied = tuple(self._applied(request, len(words)))
        receipt = Receipt(request.model or MODEL, "fake", request.sampling.seed or 0, applied)
        yield Finished(request.id, len(words) + 1, "stop", Usage(12, len(words)), receipt, 0.01)


@pytest.fixture
def model(db: None) -> Iterator[Any]:
    """model("a", "b") serves these texts in turn."""
    made: list[Scripted] = []

    def serve(*texts: str) -> Scripted:
        made.append(Scripted(*texts))
        gateway.set_inference(made[-1])
        gateway.model_info()
        return made[-1]

    yield serve
    for one in made:
        one.hold.set()
    until(lambda: not Job.objects.active().exists())
    gateway.set_inference(None)


def started(owner: User, kind: str, *policies: StoredPolicy, prompts: Any = ("Hello",), **more: Any) -> PolicyRun:
    asked = starting.asking_of(kind, list(prompts), **{"max_new_tokens": 16, "seed": 7, **more})
    return starting.start(Principal(owner), kind, [of_stored(owner, one) for one in policies], asked, SERVED)


def ended(run: PolicyRun, state: str = "succeeded") -> PolicyRun:
    runs = PolicyRun.objects.select_related("job", "owner")
    until(lambda: not runs.get(pk=run.pk).is_active)
    found = runs.get(pk=run.pk)
    assert found.state == state, found.error
    return found


def test_a_run_shows_what_happened_and_is_charged(person: User, model: Any) -> None:
    model("a dragon came", "the dragon left", "a knight came", "a knight left")
    run = ended(started(person, "run", keep_policy(person, "checked", CHECKED)))
    result = run.result["results"][0]
    assert result["accepted"] and result["output"] in ("a knight came", "a knight left")
    timeline = reading_of(run)["results"][0].timeline
    assert [len(turn.bars) for turn in timeline.turns] == [2, 2]
    assert "dragon" in timeline.turns[1].round.why and timeline.turns[1].round.told
    assert [bar.won for bar in timeline.bars].count(True) == 1
    assert all(0 <= bar.write[0] <= 1000 for bar in timeline.bars)
    entry = LedgerEntry.objects.get(work=f"job:{run.job_id}")
    assert entry.state == LedgerEntry.State.SETTLED and entry.prompt_tokens == 48 and entry.completion_tokens == 12


def test_candidates_are_sent_together(person: User, model: Any) -> None:
    fake = model("one", "two", "three", "four")
    fake.hold.clear()
    run = started(person, "run", keep_policy(person, "four", {"optimization": {"best_of_n": 4, "retry_on_failure": 0}}))
    until(lambda: fake.rows == 4)
    fake.hold.set()
    assert ended(run).result["results"][0]["spent_tokens"] == 4


def test_a_run_again_from_its_trace_is_the_same_text(person: User, model: Any, browser_of: Any) -> None:
    fake = model("a dragon", "a dragon", "a knight", "a squire")
    first = ended(started(person, "run", keep_policy(person, "checked", CHECKED)))
    fake.texts = ["a dragon", "a dragon", "a knight", "a squire"]
    browser: Client = browser_of(person)
    assert browser.post(f"{first.get_absolute_url()}replay/").status_code == 302
    again = ended(PolicyRun.objects.get(kind="replay"))
    assert again.result["same"] and not again.result["differences"]
    assert "character by character" in browser.get(again.get_absolute_url()).content.decode()
    fake.texts = ["another one"]
    other = ended(starting.replay_start(Principal(person), first))
    assert not other.result["same"] and other.result["differences"]
    assert "Another text" in browser.get(other.get_absolute_url()).content.decode()


def test_policies_are_compared_side_by_side(person: User, model: Any, browser_of: Any) -> None:
    model("same words")
    keep = [keep_policy(person, name) for name in ("first-one", "second-one")]
    wrong = keep_policy(person, "gone", {"model": {"model": "nobody-serves-this"}})
    run = ended(started(person, "compare", *keep, wrong))
    assert [bool(one.get("error")) for one in run.result["results"]] == [False, False, True]
    page = browser_of(person).get(run.get_absolute_url()).content.decode()
    assert "first-one@1.0" in page and "Side by side" in page and "refused" in page


def test_an_evaluation_has_rates_and_exports(person: User, model: Any, browser_of: Any) -> None:
    model("a knight", "a dragon", "=SUM(1)")
    policy = keep_policy(
        person, "strict", {"constraints": {"forbidden_terms": ["dragon"]}, "optimization": {"retry_on_failure": 0}}
    )
    run = ended(started(person, "evaluate", policy, prompts=["one", "two", "three"]))
    assert run.result["pass_count"] == 2 and run.result["fail_count"] == 1
    browser: Client = browser_of(person)
    page = browser.get(run.get_absolute_url()).content.decode()
    assert "67%" in page and "2 of 3" in page
    rows = browser.get(f"{run.get_absolute_url()}export.csv").content.decode().splitlines()
    assert len(rows) == 4 and "'=SUM(1)" in rows[3]
    assert browser.get(f"{run.get_absolute_url()}export.jsonl").content.count(b"\n") == 3


def test_a_search_finds_the_best_and_keeps_it(person: User, model: Any, browser_of: Any) -> None:
    model("a dragon", "a dragon", "a knight")
    policy = keep_policy(
        person, "strict", {"constraints": {"forbidden_terms": ["dragon"]}, "optimization": {"retry_on_failure": 0}}
    )
    space = {"sampling.temperature": [0.2, 0.9], "sampling.method": ["top-k", "no-such"]}
    run = ended(started(person, "tune", policy, prompts=["one", "two"], space=space, max_trials=4))
    trials = reading_of(run)["trials"]
    assert [bool(t["refused"]) for t in trials] == [False, True, False, True]
    assert [t["best"] for t in trials] == [False, False, True, False]
    browser: Client = browser_of(person)
    assert "Save the best" in browser.get(run.get_absolute_url()).content.decode()
    kept = browser.post(f"{run.get_absolute_url()}best/")
    made = StoredPolicy.objects.get(name="strict-tuned")
    assert kept["Location"] == made.get_absolute_url()
    assert made.parsed.sampling.temperature == 0.9 and made.content["constraints"] == {"forbidden_terms": ["dragon"]}


def test_a_run_is_cancelled_and_charged_for_what_it_used(person: User, model: Any) -> None:
    fake = model("one two three")
    fake.hold.clear()
    run = started(person, "run", keep_policy(person))
    until(lambda: fake.rows)
    assert starting.run_cancel(PolicyRun.objects.select_related("job").get(pk=run.pk))
    assert ended(run, "cancelled").result is None
    assert not LedgerEntry.objects.open().exists()
    until(lambda: not fake.rows, what="its rows have left the batch")


def test_a_run_whose_server_was_stopped_has_failed_with_a_cure(person: User, model: Any, browser_of: Any) -> None:
    fake = model("one")
    fake.hold.clear()
    run = started(person, "run", keep_policy(person))
    jobs_fail_interrupted()
    fake.hold.set()
    failed = ended(run, "failed")
    browser: Client = browser_of(person)
    page = browser.get(failed.get_absolute_url()).content.decode()
    assert "the work was lost" in page and "Try again" in page
    assert browser.post(f"{failed.get_absolute_url()}again/").status_code == 302
    assert ended(PolicyRun.objects.exclude(pk=run.pk).get()).result["results"][0]["output"] == "one"


def test_a_policy_that_cannot_be_honoured_fails_with_its_sentence(person: User, model: Any, browser_of: Any) -> None:
    model("x")
    run = started(person, "run", keep_policy(person, "away", {"model": {"model": "elsewhere"}}))
    failed = ended(run, "failed")
    assert "elsewhere" in failed.error["message"]
    assert LedgerEntry.objects.get(work=f"job:{run.job_id}").state == LedgerEntry.State.REFUNDED


def test_another_process_can_carry_a_run_from_its_row(person: User, model: Any) -> None:
    model("one")
    run = a_run(person, keep_policy(person), result=None, succeeded=False)
    work = PolicyWork("", str(run.pk), MODEL)
    assert request_of(Job(work=work.to_wire())) == work and is_recipe(work)
    run.job = Job.objects.create(owner=person, kind="run_policy", title="Run", work=work.to_wire())
    run.save()
    gateway.call(job_carry(run.job.pk), timeout=30)
    assert ended(run).result["results"][0]["output"] == "one"


def test_a_run_outlives_its_policy(person: User, browser_of: Any, fake_inference: FakeInference) -> None:
    policy = keep_policy(person)
    run, url = a_run(person, policy), policy.get_absolute_url()
    browser: Client = browser_of(person)
    assert url in browser.get(run.get_absolute_url()).content.decode()
    policy.delete()
    page = browser.get(run.get_absolute_url()).content.decode()
    assert "plain@1.0" in page and url not in page


def test_limits_hold(person: User, model: Any) -> None:
    model("x")
    Limit.objects.create(user=person, tokens_per_day=50)
    with pytest.raises(Denied, match="tokens"):
        started(person, "run", keep_policy(person))
    assert not PolicyRun.objects.exists() and not Job.objects.exists()


def test_a_shared_policy_runs_with_its_owners_vector_until_sharing_ends(
    person: User, stranger: User, model: Any
) -> None:
    fake = model("calm words")
    vector = keep_vector(person)
    fake.vectors[vector.content_id] = file_of(make_vector())
    content = {"steering": {"enabled": True, "vector_id": str(vector.pk), "strength": 0.3}}
    policy = keep_policy(person, "calm", content, shared=True)
    run = ended(started(stranger, "run", library.find(stranger, "calm")))
    assert fake.requests[-1].interventions[0].vector_id == vector.content_id
    assert reading_of(run)["results"][0].timeline.bars[0].applied
    library.share(policy, False)
    again = starting.replay_start(Principal(stranger), run)
    assert "vector" in ended(again, "failed").error["message"]


def test_a_lent_policy_lends_no_other_vector(person: User, stranger: User, fake_inference: FakeInference) -> None:
    mine = keep_vector(person)
    policy = keep_policy(person, "calm", PLAIN, shared=True)
    chosen = of_stored(stranger, policy)
    with pytest.raises(InvalidRequest, match="lends"):
        starting.refuse_lent_space(stranger, chosen, {"steering.vector_id": [str(mine.pk)]})
    changed = {
        "name": "x",
        "policy_id": str(policy.pk),
        "policy": {"steering": {"enabled": True, "vector_id": str(mine.pk)}},
    }
    assert of_entry(stranger, changed).lender == stranger  # what was changed is no longer what is shared


def test_unit_tests_run_only_where_an_administrator_allows_it(person: User, settings: Any) -> None:
    content = {"verifiers": {"enabled": ["unit_tests"], "code_unit_tests": ["assert add(1, 1) == 2"]}}
    with pytest.raises(InvalidRequest, match="STEERBOARD_UNIT_TESTS"):
        choose(person, policy=content)
    settings.STEERBOARD_UNIT_TESTS = True
    assert choose(person, policy=content).policy.verifiers.enabled == ("unit_tests",)


# ---- while somebody waits ----


def test_run_now_answers_and_settles(person: User, model: Any) -> None:
    model("a dragon", "a dragon", "a knight", "a squire")
    chosen = choose(person, policy=CHECKED)
    outcome = asyncio.run(
        run_now(Principal(person), chosen, "Hello", model=SERVED, max_new_tokens=8, include_trace=True)
    )
    assert outcome.accepted and outcome.trace and len(outcome.trace.rounds) == 2
    entry = settled()
    assert (entry.kind, entry.state, entry.completion_tokens) == ("policy", LedgerEntry.State.SETTLED, 8)


def test_run_now_that_takes_too_long_is_ended_with_a_cure(person: User, model: Any) -> None:
    fake = model("one")
    fake.hold.clear()
    with pytest.raises(Exception, match="latency budget"):
        asyncio.run(run_now(Principal(person), choose(person, policy=PLAIN), "Hi", model=SERVED, limit_seconds=0.3))
    assert settled().prompt_tokens == 12  # what was read is charged
    until(lambda: not fake.rows)


def test_two_saves_of_one_version_leave_one(person: User, fake_inference: FakeInference) -> None:
    done: list[str] = []

    def save(version: str) -> None:
        from django.db import connection

        try:
            done.append(keep_policy(person, "raced", PLAIN, version=version).version)
        except InvalidRequest as error:
            done.append(error.code)
        finally:
            connection.close()

    for version in ("1.0", ""):
        threads = [threading.Thread(target=save, args=(version,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(done) == ["1.0", "1.1", "1.2", "policy_exists"]
    assert StoredPolicy.objects.count() == 3


def test_the_starters_run_as_they_are(person: User, model: Any) -> None:
    model('{"item": "apples", "count": 2}')
    starters = [one for one in load_starter_policies() if not one.parsed.steering.enabled]  # presets come by a command
    runs = [started(person, "run", one) for one in starters]
    found = {run.policies[0]["name"]: ended(run).result["results"][0] for run in runs}
    assert found["strict-json-extraction@1.0"]["accepted"]
    vote = found["ensemble-vote@1.0"]["trace"]
    assert vote["selection"]["votes"] == 3 and len(found) == 4


def test_a_timeline_is_drawn_of_a_trace_without_candidates(person: User, model: Any) -> None:
    model("x")
    run = ended(started(person, "run", keep_policy(person)))
    from inference.policies.trace import Trace

    trace = Trace.from_wire(run.result["results"][0]["trace"] | {"candidates": [], "rounds": [], "selection": None})
    assert timeline_of(trace).turns == [] and a_run(person).found["results"]
