"""Policies over the REST API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from steering import gateway
from steering.accounts.models import User
from steering.jobs.models import Job
from steering.policies.models import PolicyRun, StoredPolicy
from tests.steering.policies import CHECKED, PLAIN, a_run, keep_policy
from tests.steering.rest import Program
from tests.steering.test_policies_runs import Scripted
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def fake(db: None) -> Iterator[Scripted]:
    fake = Scripted("a dragon", "a dragon", "a knight", "a squire")
    gateway.set_inference(fake)
    gateway.model_info()
    yield fake
    fake.hold.set()
    until(lambda: not Job.objects.active().exists())
    gateway.set_inference(None)


@pytest.fixture
def program(person: User, fake: Scripted) -> Program:
    return Program(person)


def ended(program: Program, body: Any) -> Any:
    def answer() -> Any:
        status, found = program.get(f"policies/runs/{body['id']}/")
        assert status == 200
        return found["state"] not in ("queued", "running") and found

    return until(answer)


def test_a_policy_is_saved_read_versioned_shared_and_deleted(program: Program, stranger: User) -> None:
    status, made = program.post("policies/", {"name": "checked", "policy": CHECKED}, again="once")
    assert status == 201 and made["version"] == "1.0" and made["policy"]["optimization"]["best_of_n"] == 2
    assert program.post("policies/", {"name": "checked", "policy": CHECKED}, again="once")[1] == made
    path = f"policies/{made['id']}/"
    status, second = program.post(f"{path}versions/", {"policy": PLAIN})
    assert status == 201 and second["version"] == "1.1" and second["policy"]["sampling"] == PLAIN["sampling"]
    assert [row["version"] for row in program.get(f"{path}versions/")[1]["data"]] == ["1.1", "1.0"]
    assert program.get(path)[1]["policy"] == made["policy"]
    other = Program(stranger)
    assert other.get(path)[0] == 404 and other.post(f"{path}clone/", {})[0] == 404
    assert program.patch(path, {"shared": True})[1]["shared"]
    assert other.get(path)[1]["call_name"] == f"mira-okafor-{made and program.key.owner_id}/checked@1.0"
    assert other.post(f"{path}clone/", {"name": "mine"})[1]["name"] == "mine"
    assert other.delete(path)[0] == 404 and program.delete(path)[0] == 204
    assert [row["version"] for row in program.get("policies/", owner="me")[1]["data"]] == ["1.1"]


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"sampling": {"methd": "greedy"}}, "Did you mean method"),
        ({"sampling": {"method": "greedy", "top_k": 7}}, "does not take top_k"),
        ({"sampling": {"temperature": 99}}, "sampling.temperature must be"),
        ({"verifiers": {"enabled": ["regex"]}}, "nothing to go by"),
        ({"steering": {"enabled": True}}, "names no vector"),
        ({"constraints": {"json_schema": {"type": 5}}}, "json_schema"),
        ({"metadata": {"x": "a\x00b"}}, "not text"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_a_cure(program: Program, policy: Any, says: str) -> None:
    status, body = program.post("policies/", {"name": "wrong", "policy": policy})
    assert status == 400 and says in body["error"]["message"], body
    assert program.post("policies/run/", {"policy": policy, "prompt": "Hi"})[0] == 400
    assert not StoredPolicy.objects.exists() and not PolicyRun.objects.exists()


def test_a_run_answers_with_its_trace(program: Program) -> None:
    body = {"policy": CHECKED, "prompt": "Hello", "max_new_tokens": 8, "seed": 3}
    status, run = program.post("policies/run/", body, again="run-once")
    assert status == 201 and run["state"] == "succeeded"
    result = run["results"][0]
    assert result["accepted"] and result["output"] in ("a knight", "a squire") and result["policy_id"] is None
    assert [r["kind"] for r in result["trace"]["rounds"]] == ["first", "repair"]
    again = program.post("policies/run/", body, again="run-once")
    assert again[1]["id"] == run["id"] and PolicyRun.objects.count() == 1
    assert program.get(f"policies/runs/{run['id']}/")[1]["results"][0]["trace"] is None
    assert program.get(f"policies/runs/{run['id']}/trace/")[1]["traces"] == [result["trace"]]
    assert program.get("policies/runs/", kind="run")[1]["data"][0]["id"] == run["id"]


def test_a_run_that_takes_long_goes_on(program: Program, fake: Scripted, person: User) -> None:
    keep_policy(person)
    fake.hold.clear()
    status, run = program.post("policies/run/", {"policy_id": "plain", "prompt": "Hello", "wait": 0})
    assert status == 202 and run["state"] in ("queued", "running") and run["results"] is None
    fake.hold.set()
    assert ended(program, run)["results"][0]["policy_id"] == str(StoredPolicy.objects.get().pk)


def test_a_run_is_cancelled(program: Program, fake: Scripted) -> None:
    fake.hold.clear()
    _, run = program.post("policies/run/", {"policy": PLAIN, "prompt": "Hello", "wait": 0})
    status, cancelled = program.post(f"policies/runs/{run['id']}/cancel/")
    assert status == 200 and cancelled["state"] == "cancelled"
    assert program.post(f"policies/runs/{run['id']}/cancel/")[1]["state"] == "cancelled"
    assert program.delete(f"policies/runs/{run['id']}/")[0] == 204


def test_a_comparison_an_evaluation_and_a_search(program: Program, fake: Scripted, person: User) -> None:
    keep_policy(person)
    both = [{"policy_id": "plain"}, {"policy": CHECKED}]
    status, run = program.post("policies/compare/", {"policies": both, "messages": [{"role": "user", "content": "Hi"}]})
    assert status == 201 and len(run["results"]) == 2 and not run["results"][1].get("error")
    fake.texts = ["a knight", "a dragon"]
    strict = {"constraints": {"forbidden_terms": ["dragon"]}, "optimization": {"retry_on_failure": 0}}
    status, run = program.post("policies/evaluate/", {"policy": strict, "prompts": ["one", "two"]})
    assert status == 202
    found = ended(program, run)["evaluation"]
    assert (found["success_rate"], found["pass_count"], len(found["outputs"])) == (0.5, 1, 2)
    space = {"sampling.temperature": [0.1, 0.9]}
    status, run = program.post("policies/autotune/", {"prompts": ["one"], "search_space": space, "policy": PLAIN})
    assert status == 202
    run = ended(program, run)
    assert len(run["tuning"]["trials"]) == 2 and run["tuning"]["best_policy"]
    status, kept = program.post(f"policies/runs/{run['id']}/best/", {"name": "tuned"})
    assert status == 201 and kept["policy"]["sampling"]["temperature"] in (0.1, 0.9)


def test_a_replay_says_whether_the_text_is_the_same(program: Program, fake: Scripted) -> None:
    _, run = program.post("policies/run/", {"policy": PLAIN, "prompt": "Hello"})
    fake.texts = ["a dragon"]
    status, again = program.post(f"policies/runs/{run['id']}/replay/", {})
    assert status == 202
    again = ended(program, again)
    assert again["same"] is True and again["results"][0]["output"] == run["results"][0]["output"]
    assert program.post(f"policies/runs/{run['id']}/replay/", {"index": 3})[0] == 400


def test_presets_are_published_and_cloned(program: Program, stranger: User) -> None:
    said = {"name": "Strict", "policy": CHECKED, "tags": ["json"], "description": "For all"}
    status, private = program.post("policies/presets/publish/", said)
    assert status == 201 and private["visibility"] == "private"
    status, public = program.post("policies/presets/publish/", said | {"visibility": "public"})
    other = Program(stranger)
    assert [row["id"] for row in other.get("policies/presets/")[1]["data"]] == [public["id"]]
    assert other.get("policies/presets/", include_public="false")[1]["data"] == []
    assert other.get(f"policies/presets/{private['id']}/")[0] == 404
    status, cloned = other.post(f"policies/presets/{public['id']}/clone/", {})
    assert status == 201 and cloned["name"] == "strict" and cloned["mine"]
    assert other.delete(f"policies/presets/{public['id']}/")[0] == 404


def test_scopes_and_strangers(program: Program, person: User, stranger: User) -> None:
    run = a_run(person, keep_policy(person))
    other = Program(stranger)
    for path in ("", "trace/"):
        assert other.get(f"policies/runs/{run.pk}/{path}")[0] == 404
    for path in ("cancel/", "replay/", "best/"):
        assert other.post(f"policies/runs/{run.pk}/{path}", {})[0] == 404
    datasets = Program(person, "datasets")
    assert datasets.get("policies/")[0] == 403 and datasets.post("policies/run/", {})[0] == 403
    generating = Program(person, "generate", models=["another-model"])
    assert generating.post("policies/run/", {"policy": PLAIN, "prompt": "Hi"})[0] == 403
    named = {"model": {"model": "elsewhere"}}
    allowed = Program(person, "generate", models=["SmolLM2-135M-Instruct"])
    assert allowed.post("policies/run/", {"policy": named, "prompt": "Hi"})[0] == 403
