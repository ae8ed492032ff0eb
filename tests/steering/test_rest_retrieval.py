"""Collections and questions over the API: the same as on the pages."""

from __future__ import annotations

from typing import Any

import pytest

from steering.accounts.models import User
from steering.retrieval.models import Collection, Question
from tests.fake_inference import MODEL, FakeInference
from tests.steering.documents import ASKED, LIGHT, VILLAGE, a_collection, an_answer, attributed
from tests.steering.play import keep_vector
from tests.steering.rest import Program
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
DOCUMENTS = [{"id": "village", "text": VILLAGE}, {"id": "light", "text": LIGHT}]
BODY = {"question": ASKED, "documents": DOCUMENTS, "max_tokens": 8, "relevant": ["light"]}


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Any, settings: Any) -> None:
    settings.DATA_DIR = tmp_path


@pytest.fixture
def program(person: User, fake_inference: FakeInference) -> Program:
    fake_inference.payloads = {"attribute_answer": attributed()}
    return Program(person)


def over() -> bool:
    return not Question.objects.get().is_active


def test_a_question_is_asked_and_its_links_are_read(program: Program) -> None:
    status, made = program.post("raag/", BODY)
    assert (status, made["model"], made["settings"]["k"]) == (201, MODEL, 5)
    assert program.last["Location"] == f"/api/v1/raag/{made['id']}/"
    until(over)
    status, found = program.get(f"raag/{made['id']}/")
    assert (status, found["state"]) == (200, "succeeded")
    assert found["findings"]["edges"] == attributed()["edges"]
    assert [p["id"] for p in found["findings"]["passages"]] == ["light#0", "village#0"]
    assert found["findings"]["retrieval"]["precision_at_1"] == 1.0
    listed = program.get("raag/")[1]["data"]
    assert [row["id"] for row in listed] == [made["id"]] and "findings" not in listed[0]
    assert program.post(f"raag/{made['id']}/cancel/")[0] == 200
    assert program.delete(f"raag/{made['id']}/")[0] == 204


def test_what_steers_is_named_as_in_runs(program: Program, person: User, fake_inference: FakeInference) -> None:
    vector = keep_vector(person)
    use = {"vector": str(vector.pk), "strength": 0.3}
    assert program.post("raag/", BODY | {"interventions": [use]})[0] == 201
    until(over)
    assert fake_inference.jobs[-1].interventions[0].strength == 0.3  # type: ignore[union-attr]


def test_a_collection_is_kept_filled_searched_and_asked(program: Program) -> None:
    status, made = program.post("collections/", {"name": "Kessin"})
    assert (status, made["documents"], made["mine"]) == (201, 0, True)
    there = f"collections/{made['id']}/"
    status, added = program.post(f"{there}documents/", {"documents": [{"text": VILLAGE}, {"text": LIGHT}]})
    assert status == 201 and len(added["data"]) == 2
    found = program.post(f"{there}search/", {"question": ASKED, "k": 1})[1]["data"]
    assert [hit["text"] for hit in found] == [LIGHT] and found[0]["chunk"] == f"{found[0]['document']}#0"
    assert program.get(f"{there}documents/{found[0]['document']}/")[1]["text"] == LIGHT
    assert program.get(there)[1]["characters"] == len(VILLAGE) + len(LIGHT)
    assert program.post("raag/", {"question": ASKED, "collection": made["id"]})[0] == 201
    until(over)
    assert program.patch(there, {"name": "Coast", "shared": True})[1]["name"] == "Coast"
    assert program.delete(f"{there}documents/{found[0]['document']}/")[0] == 204
    assert len(program.get(f"{there}documents/")[1]["data"]) == 1
    assert program.delete(there)[0] == 204 and not Collection.objects.exists()


def test_a_creation_that_is_sent_again_happens_once(program: Program) -> None:
    assert program.post("raag/", BODY, again="key")[1] == program.post("raag/", BODY, again="key")[1]
    assert Question.objects.count() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"question": ""}, {"documents": []}, {"k": 0}, {"k": 99}, {"way": "magic"}, {"max_tokens": 0}, {"surprise": 1},
        {"epsilon": -1}, {"documents": [{"text": "a\x00b"}]}, {"documents": [{"id": "a", "text": "x"}] * 2},
        {"documents": [{"text": "   "}]}, {"temperature": 9}, {"interventions": [{}]},
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(program: Program, change: dict[str, Any]) -> None:
    status, said = program.post("raag/", BODY | change)
    assert status == 400 and said["error"]["message"].endswith(".")
    assert not Question.objects.exists()


def test_another_s_things_are_not_there_unless_shared(program: Program, stranger: User) -> None:
    theirs, asked = a_collection(stranger), an_answer(stranger)
    for path in (f"collections/{theirs.pk}/", f"collections/{theirs.pk}/documents/", f"raag/{asked.pk}/"):
        assert program.get(path)[0] == 404
    assert program.post("raag/", {"question": ASKED, "collection": str(theirs.pk)})[0] == 404
    assert program.get("collections/")[1]["data"] == [] and program.get("raag/")[1]["data"] == []
    theirs.shared = True
    theirs.save()
    assert program.get(f"collections/{theirs.pk}/")[1]["mine"] is False
    assert program.post(f"collections/{theirs.pk}/search/", {"question": ASKED})[0] == 200
    for ask in (
        program.patch(f"collections/{theirs.pk}/", {"name": "x"}),
        program.delete(f"collections/{theirs.pk}/"),
        program.post(f"collections/{theirs.pk}/documents/", {"documents": [{"text": "x"}]}),
        program.delete(f"collections/{theirs.pk}/documents/{theirs.documents.get().pk}/"),
    ):
        assert ask[0] == 404


def test_a_key_needs_the_scope(person: User, fake_inference: FakeInference) -> None:
    assert Program(person, "datasets").get("raag/")[0] == 403
    assert Program(person, "jobs").get("collections/")[0] == 403
    assert Program(person, "datasets").get("collections/")[0] == 200
