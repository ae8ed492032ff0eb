"""Keys, usage, models and workers."""

from __future__ import annotations

from typing import Any

import pytest

from steering.access.models import ApiKey
from steering.access.principal import Principal
from steering.accounts.models import User
from tests.fake_inference import MODEL, FakeInference
from tests.steering.rest import Program

pytestmark = pytest.mark.django_db


class Browser(Program):
    """A person's own session speaks to the API like a program."""

    def __init__(self, person: User, browser: Any):
        self.client = browser

    def _headers(self) -> dict[str, str]:
        return {}


@pytest.fixture
def browser(person: User, browser_of: Any, fake_inference: FakeInference) -> Browser:
    return Browser(person, browser_of(person))


@pytest.fixture
def staff(person: User) -> User:
    person.is_staff = True
    person.save()
    return person


def test_a_person_makes_uses_rotates_and_revokes_a_key(browser: Browser, client: Any) -> None:
    def lets_in(secret: str) -> bool:
        return bool(client.get("/api/v1/jobs/", headers={"X-API-Key": secret}).status_code == 200)

    asked = {"name": "laptop", "scopes": ["jobs"], "models": [MODEL], "requests_per_minute": 60}
    status, key = browser.post("keys/", asked)
    assert (status, key["state"], key["models"], key["requests_per_minute"]) == (201, "active", [MODEL], 60)
    assert lets_in(key["secret"])
    shown = browser.get(f"keys/{key['id']}/")[1]
    assert "secret" not in shown
    rotated = browser.post(f"keys/{key['id']}/rotate/")[1]
    assert lets_in(rotated["secret"]) and not lets_in(key["secret"])
    assert browser.delete(f"keys/{key['id']}/")[0] == 204
    assert not lets_in(rotated["secret"])
    assert browser.post(f"keys/{key['id']}/rotate/")[0] == 409
    assert [row["id"] for row in browser.get("keys/", state="revoked")[1]["data"]] == [key["id"]]
    assert browser.get("keys/", state="active")[1]["data"] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": []}, {"scopes": ["fly"]}, {"scopes": ["admin"]}, {"name": ""}, {"models": ["gpt-9"]},
        {"expires_at": "2020-01-01T00:00:00Z"}, {"expires_at": "soon"}, {"requests_per_minute": 0},
        {"tokens_per_day": 10**20}, {"owner": 1},
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_is_refused(browser: Browser, wrong: dict[str, Any]) -> None:
    status, body = browser.post("keys/", {"name": "laptop", "scopes": ["jobs"], **wrong})
    assert status == 400
    assert [name.partition(".")[0] for name in body["error"]["fields"]] == list(wrong)
    assert not ApiKey.objects.exists()


def test_two_living_keys_have_two_names(browser: Browser) -> None:
    asked = {"name": "laptop", "scopes": ["jobs"]}
    assert [browser.post("keys/", asked)[0] for _ in range(2)] == [201, 400]


def test_a_key_looks_after_keys_only_with_its_scope_and_for_staff(person: User, staff: User) -> None:
    assert Program(staff, "admin").get("keys/")[0] == 200
    assert Program(staff, "jobs").get("keys/")[0] == 403
    assert Program(staff, "jobs").get("usage/")[0] == 403
    staff.is_staff = False
    staff.save()
    assert Program(staff, "admin").get("keys/")[0] == 403


def test_strangers_keys_are_404(browser: Browser, stranger: User) -> None:
    path = f"keys/{Program(stranger).key.pk}/"
    assert {browser.get(path)[0], browser.delete(path)[0], browser.post(f"{path}rotate/")[0]} == {404}
    assert ApiKey.objects.get(owner=stranger).revoked_at is None


def test_usage_adds_up_by_day_model_and_key(browser: Browser, person: User) -> None:
    from steering.access import admission

    key = Program(person).key
    for who, tokens in ((Principal(person), 1), (Principal(person, key), 10), (Principal(person, key), 20)):
        held = admission.reserve(who, work="run:x", kind="generate", model=MODEL, tokens=50, source="rest")
        admission.settle(held.id, prompt_tokens=tokens, completion_tokens=tokens * 2)
    by_key = browser.get("usage/", by="key")[1]["data"]
    assert {(line["key"], line["requests"], line["prompt_tokens"], line["completion_tokens"]) for line in by_key} == {
        (None, 1, 1, 2),
        (str(key.pk), 2, 30, 60),
    }
    for by in ("day", "model"):
        (line,) = browser.get("usage/", by=by)[1]["data"]
        assert (line["requests"], line["completion_tokens"]) == (3, 62)
    report = browser.get("usage/", days=1)[1]
    assert len(report["data"]) == 2
    assert report["limits"]["tokens"] == {"used": 93, "limit": None}


# ---- models and workers ----


def test_models_are_described_by_their_id_whatever_its_case(person: User, fake_inference: FakeInference) -> None:
    fake_inference.loaded = {"one": MODEL, "two": "org/other-model"}
    program = Program(person, "jobs")
    assert [model["id"] for model in program.get("models/")[1]["data"]] == [MODEL, "org/other-model"]
    status, model = program.get("models/ORG/Other-Model/")
    assert (status, model["id"], model["n_layers"], model["state"]) == (200, "org/other-model", 30, "ready")
    assert program.get("models/gpt-9/")[1]["error"]["code"] == "model_not_served"
    assert program.get("model/")[1]["id"] == MODEL


def test_staff_loads_drains_and_unloads(staff: User, fake_inference: FakeInference, settings: Any) -> None:
    settings.STEERBOARD_MODELS = ["default", "org/other"]
    program = Program(staff, "admin")
    listed = program.get("workers/")[1]
    assert (listed["data"][0]["id"], listed["loadable"]) == ("fake", ["default", "org/other"])
    assert program.post("workers/fake/load/", {"model": "org/other"})[0] == 202
    assert program.post("workers/fake/load/", {"model": "/etc/passwd"})[0] == 400
    assert [program.post(f"workers/fake/{name}/")[0] for name in ("drain", "resume", "unload")] == [202] * 3
    assert [command for _, command, _ in fake_inference.commands] == ["load", "drain", "resume", "unload"]
    assert program.post("workers/other/drain/")[0] == 404
    assert program.post("workers/fake/explode/")[0] == 404


def test_others_do_not_learn_of_workers(person: User, browser: Browser, fake_inference: FakeInference) -> None:
    for program in (browser, Program(person)):
        answers = [program.get("workers/"), program.post("workers/fake/drain/"), program.post("workers/fake/load/")]
        assert {status for status, _ in answers} == {404}
    assert not fake_inference.commands


def test_a_key_of_staff_needs_the_scope(staff: User, fake_inference: FakeInference) -> None:
    assert Program(staff, "generate").get("workers/")[0] == 403
