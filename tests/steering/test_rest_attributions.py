"""Attributions over the API: the same questions, answers and refusals as on the pages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from steering.accounts.models import User
from steering.attribution.models import Attribution
from tests.fake_inference import MODEL, FakeInference
from tests.steering.attributions import CLEAN, CORRUPTED, PAYLOADS, ended, found_by, kept
from tests.steering.features import SOURCE, a_source
from tests.steering.rest import Program
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
ASKED = {"clean": CLEAN, "corrupted": CORRUPTED, "targets": [" Mary"], "against": [" John"]}


@pytest.fixture
def program(person: User, fake_inference: FakeInference) -> Program:
    fake_inference.payloads = dict(PAYLOADS)
    fake_inference.sources = (a_source(),)
    return Program(person)


def test_a_question_is_asked_and_its_parts_are_read(program: Program) -> None:
    status, made = program.post("attributions/", ASKED | {"sites": ["z"], "alignment": [[0, 0], [3, 3]]})
    assert (status, made["name"], made["model"]) == (201, CLEAN, MODEL)
    assert program.last["Location"] == f"/api/v1/attributions/{made['id']}/"
    assert made["question"]["alignment"] == [[0, 0], [3, 3]]
    ended(Attribution.objects.get())
    status, part = program.get(f"attributions/{made['id']}/parts/attribute/")
    assert (status, part["state"], part["findings"]) == (200, "succeeded", PAYLOADS["attribute"])
    assert program.get("attributions/")[1]["data"] == [program.get(f"attributions/{made['id']}/")[1]]


@pytest.mark.parametrize(
    ("action", "body", "kind"),
    [
        ("verify", {"top": 2, "of": "each"}, "patch-exactly"),
        ("features", {"source": SOURCE, "baseline": "zero"}, "attribute-features"),
        ("lens", {"which": "corrupted"}, "logit-lens"),
        ("direct", {}, "direct-logits"),
    ],
)
def test_a_further_part_is_asked_for(program: Program, person: User, action: str, body: Any, kind: str) -> None:
    attribution = kept(person, model_id=MODEL)
    status, part = program.post(f"attributions/{attribution.pk}/{action}/", body)
    assert (status, part["state"]) == (202, "queued")
    assert part["settings"].items() >= {name: value for name, value in body.items() if name != "of"}.items()
    there = program.last["Location"]
    assert there == f"/api/v1/attributions/{attribution.pk}/parts/{kind}/"
    ended(attribution, kind.replace("-", "_"))
    assert program.get(there)[1]["findings"] == found_by(kind.replace("-", "_"))


def test_a_creation_that_is_sent_again_happens_once(program: Program) -> None:
    first = program.post("attributions/", ASKED, again="key")[1]
    assert program.post("attributions/", ASKED, again="key")[1] == first
    assert Attribution.objects.count() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"targets": []}, {"clean": ""}, {"metric": "poem"}, {"sites": ["nowhere"]}, {"steps": 10_000}, {"surprise": 1},
        {"alignment": [[0]]}, {"corrupted": "a\x00b"}, {"layers": [-1]}, {"metric": "kl"},
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(program: Program, change: dict[str, Any]) -> None:
    status, said = program.post("attributions/", ASKED | change)
    assert status == 400 and said["error"]["message"].endswith(".")
    assert not Attribution.objects.exists()


def test_another_s_attribution_is_not_there(program: Program, stranger: User) -> None:
    theirs = kept(stranger)
    for path in ("", "parts/attribute/", "export/"):
        assert program.get(f"attributions/{theirs.pk}/{path}")[0] == 404
    assert program.delete(f"attributions/{theirs.pk}/")[0] == 404
    assert program.post(f"attributions/{theirs.pk}/lens/")[0] == 404
    assert program.get("attributions/")[1]["data"] == []


def test_a_key_needs_the_scope(person: User, fake_inference: FakeInference) -> None:
    assert Program(person, "datasets").get("attributions/")[0] == 403


def test_it_is_exported_renamed_and_deleted(program: Program, person: User) -> None:
    attribution = kept(person)
    path = f"attributions/{attribution.pk}/"
    assert program.get(f"{path}export/")[1]["parts"]["attribute"]["findings"] == PAYLOADS["attribute"]
    headers = {"Authorization": f"Bearer {program.secret}"}
    lines = program.client.get(f"/api/v1/{path}export/?format=csv", headers=headers).content.decode().splitlines()
    assert len(lines) == 1 + 28
    assert program.patch(path, {"name": "The drink"})[1]["name"] == "The drink"
    assert program.delete(path)[0] == 204 and not Attribution.objects.exists()


def test_a_part_that_nobody_asked_for_is_not_there(program: Program, person: User) -> None:
    attribution = kept(person)
    assert program.get(f"attributions/{attribution.pk}/parts/logit-lens/")[0] == 404
    assert program.get(f"attributions/{attribution.pk}/parts/poem/")[0] == 404


def test_the_model_is_mapped(program: Program) -> None:
    assert program.get("attributions/map/")[0] == 404
    assert program.post("attributions/map/")[0] == 202
    until(lambda: program.get("attributions/map/")[0] == 200)
    assert json.loads(program.last.content)["map"] == PAYLOADS["map_model"]
