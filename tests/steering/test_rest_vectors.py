from __future__ import annotations

from typing import Any, get_args

import pytest

from inference.types import CreateVector, Forecast, Method
from steering.accounts.models import User
from steering.jobs.models import Job
from steering.presets.models import Preset
from steering.vectors.models import Vector
from tests.fake_inference import FakeInference
from tests.steering.play import keep_vector
from tests.steering.rest import PAIRS, Program, a_dataset, heard
from tests.steering.vector_files import MODEL, file_of, make_vector, payload_of

pytestmark = pytest.mark.django_db


@pytest.mark.django_db(transaction=True)
def test_a_build_is_a_job_that_leads_to_the_vector(person: User, fake_inference: FakeInference) -> None:
    fake_inference.payload = payload_of(make_vector())
    program = Program(person)
    asked = {"dataset": a_dataset(program, pairs=PAIRS)["id"], "name": "Calm", "chat": True, "layers": [2, 0]}
    status, job = program.post("vectors/build/", asked, again="a")
    assert (status, job["kind"], job["settings"]["layers"]) == (202, "create_vector", [0, 2])
    assert program.last.headers["Location"] == f"/api/v1/jobs/{job['id']}/"
    ended = ended_job(program, job["id"])
    assert (ended["state"], ended["error"]) == ("succeeded", None)
    vector = program.get(f"vectors/{ended['vector']}/")[1]
    assert (vector["name"], vector["dataset"], vector["model"]) == ("Calm", asked["dataset"], MODEL)
    assert program.post("vectors/build/", asked, again="a")[1]["id"] == job["id"]
    assert [type(job) for job in fake_inference.jobs] == [CreateVector]


def ended_job(program: Program, id: str) -> dict[str, Any]:
    """Follows the stream of a job to its end."""
    program.get(f"jobs/{id}/events/")
    heard(program.last)
    job: dict[str, Any] = program.get(f"jobs/{id}/")[1]
    return job


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"layers": [30]}, 400), ({"layers": ["1"]}, 400), ({"method": "magic"}, 400), ({"shots": 0}, 400),
        ({"chat": "yes"}, 400),
        ({"model": "gpt-9"}, 404), ({"dataset": "00000000-0000-0000-0000-000000000000"}, 400),
    ],
)  # fmt: skip
def test_a_build_that_cannot_be_done_starts_nothing(
    person: User, fake_inference: FakeInference, wrong: dict[str, Any], status: int
) -> None:
    program = Program(person)
    assert program.post("vectors/build/", {"dataset": a_dataset(program, pairs=PAIRS)["id"], **wrong})[0] == status
    assert not Job.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("method", get_args(Method))
def test_every_method_of_the_model_side_can_be_asked_for(
    person: User, fake_inference: FakeInference, method: str
) -> None:
    fake_inference.payload = payload_of(make_vector())
    program = Program(person)
    asked = {"dataset": a_dataset(program, pairs=PAIRS)["id"], "method": method, "shots": 2}
    status, job = program.post("vectors/build/", asked)
    assert status == 202
    assert ended_job(program, job["id"])["state"] == "succeeded"
    (request,) = fake_inference.jobs
    assert isinstance(request, CreateVector) and request.method == method
    assert request.shots == (2 if method == "few_shot" else CreateVector.shots)


FOUND = {"layer": 9, "verdict": "uncertain", "sentence": "A quarter disagrees.", "disagreeing": [], "layers": []}


@pytest.mark.django_db(transaction=True)
def test_a_forecast_is_a_job_with_a_result_and_builds_nothing(person: User, fake_inference: FakeInference) -> None:
    fake_inference.payload = dict(FOUND)
    program = Program(person)
    asked = {"dataset": a_dataset(program, pairs=PAIRS)["id"], "method": "pca", "layers": [9]}
    status, job = program.post("vectors/forecast/", asked, again="a")
    assert (status, job["kind"], job["result"]) == (202, "forecast", None)
    ended = ended_job(program, job["id"])
    assert (ended["state"], ended["result"], ended["vector"]) == ("succeeded", FOUND, None)
    (request,) = fake_inference.jobs
    assert isinstance(request, Forecast) and (request.method, request.layers) == ("pca", (9,))
    assert not Vector.objects.exists()


@pytest.mark.parametrize("wrong", [{"method": "promotion"}, {"layers": [30]}, {"steps": 3}])
def test_a_forecast_that_cannot_be_made_starts_nothing(
    person: User, fake_inference: FakeInference, wrong: dict[str, Any]
) -> None:
    program = Program(person)
    asked = {"dataset": a_dataset(program, pairs=PAIRS)["id"]}
    assert program.post("vectors/forecast/", asked | wrong)[0] == 400
    three = {"dataset": a_dataset(program, "Three", PAIRS[:3])["id"], "method": "prompt_difference"}
    assert program.post("vectors/forecast/", three)[0] == 400
    assert not Job.objects.exists()


def test_a_strangers_dataset_is_as_absent_as_none(person: User, stranger: User, fake_inference: FakeInference) -> None:
    theirs = a_dataset(Program(stranger))["id"]
    program = Program(person)
    refusals = [
        program.post("vectors/build/", {"dataset": id})[1]["error"]["message"]
        for id in (theirs, "00000000-0000-0000-0000-000000000000")
    ]
    assert refusals[0] == refusals[1]


def test_a_key_for_another_model_builds_nothing(person: User, fake_inference: FakeInference) -> None:
    program = Program(person, models=["other"])
    status, body = program.post("vectors/build/", {"dataset": a_dataset(program, pairs=PAIRS)["id"], "model": MODEL})
    assert (status, body["error"]["code"]) == (403, "model_not_allowed")
    assert not Job.objects.exists()


def test_an_imported_vector_comes_out_byte_for_byte(person: User, fake_inference: FakeInference) -> None:
    program, data = Program(person), file_of(make_vector())
    status, vector = program.upload("vectors/import/", data, "calm.safetensors")
    assert (status, vector["name"], vector["recommended_layer"], vector["layers"]) == (201, "calm", 2, [0, 1, 2, 3])
    assert program.upload("vectors/import/", data, "calm.safetensors") == (200, vector)
    assert program.get(f"vectors/{vector['id']}/download/")[0] == 200
    assert program.last.content == data
    assert 'filename="calm.safetensors"' in program.last.headers["Content-Disposition"]


def test_a_file_that_is_no_vector_is_refused_with_a_sentence(person: User, fake_inference: FakeInference) -> None:
    status, body = Program(person).upload("vectors/import/", b"not a vector", "x.safetensors")
    assert status == 400
    assert body["error"]["message"].endswith(".")


def test_a_vector_is_renamed_found_and_deleted(person: User) -> None:
    program, vector = Program(person), keep_vector(person)
    path = f"vectors/{vector.pk}/"
    assert program.patch(path, {"description": "patient"})[1]["name"] == "calm"
    assert program.patch(path, {"name": "Cool"})[1]["description"] == "patient"
    assert program.patch(path, {"name": ""})[0] == 400
    assert [row["name"] for row in program.get("vectors/", q="coo", model=MODEL)[1]["data"]] == ["Cool"]
    assert program.get("vectors/", model="other")[1]["data"] == []
    assert program.delete(path)[0] == 204
    assert not Vector.objects.exists()


def test_strangers_get_404(person: User, stranger: User) -> None:
    path = f"vectors/{keep_vector(person).pk}/"
    other = Program(stranger)
    calls = [other.get(path), other.patch(path, {"name": "x"}), other.delete(path), other.get(f"{path}download/")]
    assert {status for status, _ in calls} == {404}


# ---- presets ----


def a_preset(program: Program, vector: Vector, **more: Any) -> tuple[int, Any]:
    uses = [{"vector": str(vector.pk), "strength": 0.3}]
    return program.post("presets/", {"name": "calm", "uses": uses, "sampling": {"temperature": 0.4}, **more})


def test_a_preset_is_saved_shared_and_named_as_a_model(
    person: User, stranger: User, fake_inference: FakeInference
) -> None:
    program, other, vector = Program(person), Program(stranger), keep_vector(person)
    status, preset = a_preset(program, vector)
    assert (status, preset["model_name"]) == (201, f"{MODEL.lower()}::calm@1.0")
    assert preset["uses"][0] | {"positions": 0} == {
        "vector": str(vector.pk), "layer": 2, "operation": "add", "strength": 0.3, "unit": "relative",
        "positions": 0, "norm_preserving": False, "schedule": None, "condition": None, "feature": None,
    }  # fmt: skip
    path = f"presets/{preset['id']}/"
    assert other.get(path)[0] == 404
    assert program.patch(path, {"shared": True})[1]["shared"] is True
    assert other.get(path)[1]["mine"] is False
    assert other.patch(path, {"shared": False})[0] == 404
    assert other.delete(path)[0] == 404
    assert [row["name"] for row in other.get("presets/", owner="others")[1]["data"]] == ["calm"]
    assert program.delete(path)[0] == 204


def test_a_version_is_never_saved_twice(person: User, fake_inference: FakeInference) -> None:
    program, vector = Program(person), keep_vector(person)
    a_preset(program, vector)
    status, body = a_preset(program, vector)
    assert (status, body["error"]["code"]) == (400, "preset_exists")
    assert a_preset(program, vector, version="1.1")[0] == 201


def test_a_strangers_vector_is_in_no_preset(person: User, stranger: User, fake_inference: FakeInference) -> None:
    status, body = a_preset(Program(stranger), keep_vector(person))
    assert (status, body["error"]["code"]) == (404, "vector_not_found")


def test_a_vector_that_a_preset_uses_stays(person: User, fake_inference: FakeInference) -> None:
    program, vector = Program(person), keep_vector(person)
    a_preset(program, vector)
    status, body = program.delete(f"vectors/{vector.pk}/")
    assert (status, body["error"]["code"]) == (400, "vector_in_use")
    assert "calm@1.0" in body["error"]["message"]
    Preset.objects.all().delete()
    assert program.delete(f"vectors/{vector.pk}/")[0] == 204
