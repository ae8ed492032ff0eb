from __future__ import annotations

import time
from typing import Any

import pytest

from steering.accounts.models import User
from steering.features.models import FeatureLabel
from tests.fake_inference import MODEL, FakeInference
from tests.steering.features import SOURCE, a_source, description, reading
from tests.steering.rest import Program, a_dataset
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def fake(fake_inference: FakeInference) -> FakeInference:
    fake_inference.delay = 0.0
    fake_inference.sources = (
        a_source(indexed=True),
        a_source("5-broken", problem="Its file is cut off. Copy it again."),
    )
    found = {"index": 3, "mean": 2.0, "baseline": 0.5, "lift": 1.5, "max": 4.0, "token": " fox"}
    fake_inference.payloads = {
        "read_features": reading(),
        "describe_feature": description(3),
        "search_features": {"found": [found]},
        "index_corpus": {"tokens": 12, "texts": 2, "features": 3, "dead": 61},
    }
    return fake_inference


@pytest.fixture
def program(person: User, fake: FakeInference) -> Program:
    return Program(person)


def done(program: Program, path: str) -> Any:
    deadline = time.monotonic() + 20
    while True:
        status, body = program.get(path)
        assert status == 200, body
        if body["state"] not in ("queued", "running") or time.monotonic() > deadline:
            assert body["state"] == "succeeded", body
            return body
        time.sleep(0.02)


def test_sources_are_listed_with_their_problems(program: Program) -> None:
    status, body = program.get("features/sources/")
    assert status == 200
    assert [(s["id"], s["problem"] != "", s["model"]) for s in body["data"]] == [
        (SOURCE, False, MODEL),
        ("5-broken", True, MODEL),
    ]
    assert program.get(f"features/sources/{SOURCE}/")[1]["width"] == 64
    assert program.get("features/sources/5-broken/")[1]["error"]["code"] == "source_unusable"
    assert program.get("features/sources/none/")[0] == 404


def test_a_text_is_read(program: Program, fake: FakeInference) -> None:
    asked = {"source": SOURCE, "text": "the quick brown fox", "features": [3], "sort_by": [1]}
    status, job = program.post("features/read/", asked)
    assert (status, job["kind"]) == (202, "read_features")
    body = done(program, program.last.headers["Location"])
    found = body["reading"]
    assert found["tokens"][0] == {"id": 100, "text": " the"}
    assert found["overall"][0] == {"index": 3, "value": 4.0, "token": 3}
    assert found["sorted"][0] == {"index": 5, "value": 0.5, "token": 1}
    assert (found["values"]["3"][0], found["left_out"], found["l0"]) == (1.0, [0], 1.25)
    assert (fake.jobs[-1].features, fake.jobs[-1].sort_by, fake.jobs[-1].top) == ((3,), (1,), 10)


def test_a_reading_wants_a_text_or_messages_and_not_both(program: Program) -> None:
    said = [{"role": "user", "content": "Hi"}]
    assert program.post("features/read/", {"source": SOURCE})[0] == 400
    assert program.post("features/read/", {"source": SOURCE, "text": "Hi", "messages": said})[0] == 400
    assert program.post("features/read/", {"source": SOURCE, "messages": said})[0] == 202
    assert program.post("features/read/", {"source": "9-none", "text": "Hi"})[1]["error"]["code"] == "source_not_found"


def test_a_feature_is_described_with_its_labels(program: Program) -> None:
    program.post("features/labels/", {"source": SOURCE, "index": 3, "text": "rivers"})
    status, body = program.get(f"features/sources/{SOURCE}/3/")
    assert status == 200, body
    assert body["promotes"] == [{"id": 7, "text": " sea", "change": 1.5}]
    assert body["nearest"] == [{"index": 4, "cosine": 0.5}]
    assert (body["max_activation"], body["histogram"]["counts"]) == (4.0, [9, 1])
    assert [(label["text"], label["mine"], label["proposed"]) for label in body["labels"]] == [("rivers", True, False)]
    status, body = program.get(f"features/sources/{SOURCE}/64/")
    assert (status, body["error"]["code"]) == (400, "feature_out_of_range")
    assert "0 to 63" in body["error"]["message"]


def test_examples_find_features(program: Program) -> None:
    status, _ = program.post("features/search/", {"source": SOURCE, "texts": ["a", "b"], "against": ["c"]})
    assert status == 202
    body = done(program, program.last.headers["Location"])
    assert body["found"] == [{"index": 3, "mean": 2.0, "baseline": 0.5, "lift": 1.5, "max": 4.0, "token": " fox"}]


def test_labels_are_made_changed_and_deleted_by_their_owner_alone(program: Program) -> None:
    status, label = program.post("features/labels/", {"source": SOURCE, "index": 3, "text": " rivers  and banks "})
    assert (status, label["text"], label["shared"]) == (201, "rivers and banks", True)
    other = Program(User.objects.create_user("other@example.org", name="Olga"))
    assert [row["text"] for row in other.get("features/labels/", q="river")[1]["data"]] == ["rivers and banks"]
    assert other.patch(f"features/labels/{label['id']}/", {"text": "mine now"})[0] == 404
    assert other.delete(f"features/labels/{label['id']}/")[0] == 404
    assert program.patch(f"features/labels/{label['id']}/", {"shared": False})[1]["shared"] is False
    assert other.get("features/labels/")[1]["data"] == []
    assert program.patch(f"features/labels/{label['id']}/", {})[0] == 400
    assert program.delete(f"features/labels/{label['id']}/")[0] == 204
    assert not FeatureLabel.objects.exists()


def test_a_proposal_becomes_a_marked_label(program: Program) -> None:
    status, job = program.post("features/propose/", {"source": SOURCE, "index": 3})
    assert status == 202
    done(program, f"jobs/{job['id']}/")
    (label,) = program.get("features/labels/", mine="true")[1]["data"]
    assert label["proposed"] is True


def test_only_administrators_index(program: Program, fake: FakeInference) -> None:
    asked = {"source": SOURCE, "texts": ["One text.", "Another."]}
    assert program.post("features/index/", asked)[0] == 403
    boss = Program(User.objects.create_superuser("boss@example.org"))
    status, job = boss.post("features/index/", asked)
    assert status == 202
    done(boss, f"jobs/{job['id']}/")
    assert fake.jobs[-1].texts == ("One text.", "Another.")
    dataset = a_dataset(boss)
    assert boss.post("features/index/", {"source": SOURCE, "dataset": dataset["id"]})[0] == 202
    assert boss.post("features/index/", {"source": SOURCE})[0] == 400


def test_a_preset_and_a_run_take_features(program: Program, fake: FakeInference) -> None:
    use = {"feature": {"source": SOURCE, "index": 3}, "operation": "clamp", "strength": 0.5, "unit": "max"}
    status, preset = program.post("presets/", {"name": "rivers", "uses": [use]})
    assert status == 201, preset
    (kept,) = preset["uses"]
    assert (kept["vector"], kept["feature"], kept["unit"]) == (None, {"source": SOURCE, "index": 3}, "max")
    lane = {"name": "Steered", "interventions": [use]}
    watched = [{"source": SOURCE, "index": 5}]
    status, run = program.post("runs/", {"input": "Hi", "lanes": [lane], "watched": watched})
    assert status == 201, run
    answer = done_run(program, run["id"])
    assert answer["settings"]["watched"] == watched
    (request,) = fake.requests
    assert (request.interventions[0].feature.index, request.watches[0].probe.features[0].index) == (3, 5)
    again = {"input": "Hi", "lanes": answer["settings"]["lanes"], "watched": answer["settings"]["watched"]}
    assert program.post("runs/", again)[0] == 201


def done_run(program: Program, id: str) -> Any:
    return until(lambda: (body := program.get(f"runs/{id}/")[1])["state"] != "running" and body)


@pytest.mark.parametrize(
    "use",
    [
        {},
        {"vector": None},
        {"vector": "7d1c0c64-4a4e-4b6c-8f0e-0e4a3a2f9b10", "feature": {"source": SOURCE, "index": 3}},
    ],
)
def test_a_use_names_a_vector_or_a_feature(program: Program, use: dict[str, Any]) -> None:
    status, body = program.post("presets/", {"name": "x", "uses": [use]})
    assert status == 400 and "either a vector or a feature" in str(body)
