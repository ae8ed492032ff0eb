"""Optimised vectors on the product's side: the job, its live curve, what is kept and what is charged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from inference.store import seal, summary
from inference.types import OptimiseVector, SteeringVector
from steering.access.models import LedgerEntry
from steering.accounts.models import User
from steering.datasets.models import Dataset
from steering.jobs.models import Job
from steering.vectors.builds import datapoints_of
from steering.vectors.models import Vector
from tests.fake_inference import FakeInference
from tests.steering.rest import Program, a_dataset
from tests.steering.test_rest_vectors import ended_job
from tests.steering.vector_files import make_vector

pytestmark = pytest.mark.django_db(transaction=True)
CURVE = [[0, 5.0], [1, 2.5]]
POINT = {"prompt": "My cat is", "promote": [" purring"], "suppress": [" asleep"]}
ASKED: dict[str, Any] = {"name": "Purring", "datapoints": [POINT], "layer": 2}


def optimised(seed: int = 0) -> SteeringVector:
    facts = {"curve": CURVE, "norms": {"2": 12.0}, "tokens": 321, "loss": {"start": 5.0, "best": 2.5, "step": 1}}
    vector = make_vector(seed=seed)
    return seal(
        replace(
            vector,
            id="",
            directions=vector.directions[2:3],
            residual_norms={2: 40.0},
            stats=(),
            method="optimised_promotion",
            provenance=facts,
        )
    )


def test_an_optimisation_is_a_job_with_a_curve_that_leads_to_the_vector(
    person: User, fake_inference: FakeInference, client: Client
) -> None:
    fake_inference.payload = {"vector": summary(optimised())}
    fake_inference.facts = {"loss": 2.5, "curve": CURVE}
    program = Program(person)
    status, job = program.post("vectors/optimise/", ASKED | {"seeds": 4, "target_loss": 1.0}, again="a")
    assert (status, job["kind"]) == (202, "optimise_vector")
    assert (job["settings"]["datapoints"], job["settings"]["seeds"]) == (1, 4)
    ended = ended_job(program, job["id"])
    assert (ended["state"], ended["error"], ended["facts"]["curve"]) == ("succeeded", None, CURVE)
    assert program.post("vectors/optimise/", ASKED | {"seeds": 4, "target_loss": 1.0}, again="a")[1]["id"] == job["id"]
    (asked,) = fake_inference.jobs
    assert isinstance(asked, OptimiseVector)
    assert asked.datapoints[0].promote == (" purring",)
    assert (asked.layer, asked.target_loss, asked.max_norm) == (2, 1.0, None)

    vector = program.get(f"vectors/{ended['vector']}/")[1]
    assert (vector["name"], vector["method"]) == ("Purring", "optimised_promotion")
    assert vector["provenance"]["curve"] == CURVE
    row = Vector.objects.get(pk=ended["vector"])
    assert row.facts.norms == {2: 12.0}
    assert row.facts.raw_strength == pytest.approx(1.0)  # 0.3 of 40 is the vector as it was trained
    entry = LedgerEntry.objects.get()
    assert entry.prompt_tokens == 321
    client.force_login(person)
    page = client.get(row.get_absolute_url())
    assert page.status_code == 200
    assert "optimised" in page.content.decode()
    said = client.get(reverse("jobs:status", args=[job["id"]])).json()
    assert said["facts"] == {"loss": 2.5, "curve": CURVE}
    assert client.get(reverse("vectors:list")).status_code == 200


def test_several_vectors_are_each_kept(person: User, fake_inference: FakeInference) -> None:
    fake_inference.payload = {"vectors": [summary(optimised(1)), summary(optimised(2))]}
    program = Program(person)
    asked = {"name": "Odd", "datapoints": [{"prompt": "I"}], "layer": 1, "method": "melbo", "count": 2}
    job = ended_job(program, program.post("vectors/optimise/", asked)[1]["id"])
    kept = Vector.objects.filter(owner=person).order_by("name")
    assert [vector.name for vector in kept] == ["Odd 1", "Odd 2"]
    assert job["vector"] == str(kept[0].pk)


def test_a_datasets_pairs_become_datapoints(person: User, fake_inference: FakeInference) -> None:
    fake_inference.payload = {"vector": summary(optimised())}
    program = Program(person)
    dataset = a_dataset(program)["id"]
    job = program.post("vectors/optimise/", {"name": "x", "dataset": dataset, "layer": 1, "method": "bipo"})[1]
    ended_job(program, job["id"])
    row = Dataset.objects.get(pk=dataset)
    (asked,) = fake_inference.jobs
    assert isinstance(asked, OptimiseVector)
    assert asked.datapoints == datapoints_of(row.pairs(), "bipo")
    assert asked.datapoints[0].promote == (row.pairs()[0].positive,)
    assert asked.datapoints[0].suppress == (row.pairs()[0].negative,)
    assert asked.dataset_digest == row.digest()
    assert Vector.objects.get().dataset == row
    assert datapoints_of(row.pairs(), "melbo")[0].promote == ()


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"layer": 30}, 400), ({"method": "magic"}, 400), ({"datapoints": []}, 400), ({"model": "gpt-9"}, 404),
        ({"dataset": "00000000-0000-0000-0000-000000000000"}, 404), ({"steps": 5000}, 400), ({"rank": 40}, 400),
        ({"datapoints": [{"prompt": "x", "wanted": ["y"]}]}, 400), ({"max_norm": "big"}, 400),
    ],
)  # fmt: skip
def test_what_cannot_be_done_starts_nothing(
    person: User, fake_inference: FakeInference, wrong: dict[str, Any], status: int
) -> None:
    assert Program(person).post("vectors/optimise/", ASKED | wrong)[0] == status
    assert not Job.objects.exists()


def test_a_job_can_be_told_to_end_with_the_best(person: User, stranger: User, fake_inference: FakeInference) -> None:
    fake_inference.payload = {"vector": summary(optimised())}
    fake_inference.delay = 0.5
    program = Program(person)
    job = program.post("vectors/optimise/", ASKED)[1]
    assert Program(stranger).post(f"jobs/{job['id']}/finish/", {})[0] == 404
    assert program.post(f"jobs/{job['id']}/finish/", {})[0] == 200
    assert ended_job(program, job["id"])["state"] == "succeeded"
    assert fake_inference.finished == {job["id"]}


def test_the_page_can_tell_it_too(person: User, fake_inference: FakeInference, client: Client) -> None:
    client.force_login(person)
    job = Job.objects.create(owner=person, kind="optimise_vector", title="x", state=Job.State.SUCCEEDED)
    assert client.get(reverse("jobs:finish", args=[job.pk])).status_code == 405
    answer = client.post(reverse("jobs:finish", args=[job.pk]), headers={"accept": "application/json"})
    assert answer.json()["state"] == "succeeded"
    assert client.post(reverse("jobs:finish", args=[job.pk])).status_code == 302
    assert fake_inference.finished == set()


def test_without_room_in_the_quota_nothing_starts(person: User, fake_inference: FakeInference) -> None:
    from tests.steering.test_charging import limit

    limit(person, tokens_per_day=100)
    status, body = Program(person).post("vectors/optimise/", ASKED)
    assert (status, body["error"]["code"] if "error" in body else body) == (429, "quota_spent")
    assert not Job.objects.exists()
