"""Creations that are sent again, at once or later, with the same Idempotency-Key."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from steering.access.models import ApiKey
from steering.access.principal import Principal
from steering.accounts.models import User
from steering.api import idempotency
from steering.api.idempotency import Answer, StillRunning, once
from steering.api.models import KeptAnswer
from steering.datasets.models import Dataset
from tests.steering.rest import PAIRS, Program
from tests.steering.test_rest_datasets import LINES

pytestmark = pytest.mark.django_db
BODY = {"name": "Calm", "pairs": PAIRS}


def test_a_request_sent_again_runs_once_and_gets_the_same_answer(person: User) -> None:
    program = Program(person)
    first = program.post("datasets/", BODY, again="a")
    assert "Idempotency-Replayed" not in program.last.headers
    where = program.last.headers["Location"]
    assert program.post("datasets/", {"pairs": PAIRS, "name": "Calm"}, again="a") == first  # names in another order
    assert program.last.headers["Idempotency-Replayed"] == "true"
    assert program.last.headers["Location"] == where
    assert Dataset.objects.count() == 1
    assert program.post("datasets/", BODY, again="b")[1]["id"] != first[1]["id"]


def test_the_same_key_with_another_request_is_422(person: User) -> None:
    program = Program(person)
    program.post("datasets/", BODY, again="a")
    for path, body in (("datasets/", BODY | {"name": "Other"}), ("datasets/import/", {"text": LINES.decode()})):
        status, answer = program.post(path, body, again="a")
        assert (status, answer["error"]["code"]) == (422, "idempotency_key_reused")
    assert Dataset.objects.count() == 1


def test_keys_of_two_senders_have_nothing_to_do_with_each_other(person: User, stranger: User) -> None:
    ids = {program.post("datasets/", BODY, again="a")[1]["id"] for program in (Program(person), Program(stranger))}
    ids.add(Program(person).post("datasets/", BODY, again="a")[1]["id"])  # another key of the same person
    assert len(ids) == 3


def test_a_refused_request_may_be_mended_and_sent_again(person: User) -> None:
    program = Program(person)
    assert program.upload("datasets/import/", b"not json", again="a")[0] == 400
    assert program.upload("datasets/import/", LINES, again="a")[0] == 201


def test_an_upload_sent_again_is_known_though_its_boundary_is_another(person: User) -> None:
    program = Program(person)
    first = program.upload("datasets/import/", LINES, again="a")
    assert program.upload("datasets/import/", LINES, again="a") == first
    assert program.upload("datasets/import/", LINES + b"\n", again="a")[0] == 422


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_has_1_to_255_characters(person: User, key: str) -> None:
    program = Program(person)
    headers = program._headers() | {"Idempotency-Key": key}
    response = program.client.post("/api/v1/datasets/", BODY, content_type="application/json", headers=headers)
    assert response.status_code == 400


def test_the_secret_of_an_api_key_is_not_kept(person: User) -> None:
    person.is_staff = True
    person.save()
    program = Program(person)
    asked = {"name": "laptop", "scopes": ["jobs"]}
    first = program.post("keys/", asked, again="a")[1]
    assert first["secret"] not in str(KeptAnswer.objects.values_list("body", flat=True))
    status, again = program.post("keys/", asked, again="a")
    assert (status, again) == (201, first | {"secret": None})
    assert ApiKey.objects.filter(name="laptop").count() == 1


def test_work_that_fails_leaves_neither_rows_nor_an_answer(person: User) -> None:
    def fail() -> Answer:
        Dataset.objects.create(owner=person, name="half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        once(Principal(person), "a", "d", fail)
    assert not Dataset.objects.exists() and not KeptAnswer.objects.exists()


def test_what_its_process_left_unanswered_is_answered_by_the_next_after_a_while(person: User) -> None:
    who = Principal(person)
    claim = idempotency._claim(who, idempotency.hashlib.sha256(b"a").hexdigest(), "d")  # and the process is gone
    with pytest.raises(StillRunning):
        once(who, "a", "d", lambda: Answer(201, 1))
    KeptAnswer.objects.filter(pk=claim.pk).update(claimed_at=timezone.now() - timedelta(minutes=3))
    assert once(who, "a", "d", lambda: Answer(201, 2)).body == 2
    assert once(who, "a", "d", lambda: Answer(201, 3)) == Answer(201, 2, replayed=True)


def test_answers_are_forgotten_after_a_day(person: User) -> None:
    program = Program(person)
    program.post("datasets/", BODY, again="a")
    KeptAnswer.objects.update(claimed_at=timezone.now() - timedelta(days=2))
    assert program.post("datasets/", BODY, again="a")[0] == 201
    assert (Dataset.objects.count(), KeptAnswer.objects.count()) == (2, 1)


@pytest.mark.django_db(transaction=True)
def test_of_many_at_the_same_time_one_runs(person: User) -> None:
    program = Program(person)
    start = threading.Barrier(8)
    answers: list[tuple[int, Any]] = []

    def send() -> None:
        sender = Program.__new__(Program)
        sender.secret, sender.client = program.secret, type(program.client)(raise_request_exception=False)
        try:
            start.wait(30)
            answers.append(sender.post("datasets/", BODY, again="a"))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 8
    assert {status for status, _ in answers} <= {201, 409}
    assert len({body["id"] for status, body in answers if status == 201}) == 1
    assert {body["error"]["code"] for status, body in answers if status == 409} <= {"request_in_progress"}
    assert Dataset.objects.count() == 1
