from __future__ import annotations

import json

import pytest

from steering.accounts.models import User
from steering.datasets import library
from steering.datasets.models import Dataset
from tests.fake_inference import FakeInference
from tests.steering import rest
from tests.steering.rest import Json, Program

pytestmark = pytest.mark.django_db
PAIRS = rest.PAIRS[:3]
LINES = "\n".join(json.dumps(pair) for pair in PAIRS).encode()


def a_dataset(program: Program, name: str = "Calm", pairs: list[Json] = PAIRS) -> Json:
    return rest.a_dataset(program, name, pairs)


def test_a_dataset_goes_in_and_comes_out_as_it_was(person: User) -> None:
    program = Program(person)
    dataset = a_dataset(program, "Calm instead of anger")
    assert program.last.headers["Location"] == f"/api/v1/datasets/{dataset['id']}/"
    assert (dataset["n_pairs"], dataset["version"], dataset["kind"], dataset["starter"]) == (3, 1, "pairs", False)
    assert program.get(f"datasets/{dataset['id']}/") == (200, dataset)
    assert program.get(f"datasets/{dataset['id']}/pairs/") == (
        200,
        {"version": 1, "n_pairs": 3, "start": 0, "pairs": PAIRS},
    )
    assert program.get(f"datasets/{dataset['id']}/pairs/", start=1, limit=1)[1]["pairs"] == PAIRS[1:2]


def test_filters_find_by_name_kind_and_owner(person: User) -> None:
    program = Program(person)
    a_dataset(program, "Calm")
    a_dataset(program, "Brief", [{"positive": "Yes.", "negative": "Well, you see, it depends."}])
    Dataset.objects.create(owner=None, slug="calm", name="Calm starter")

    def names(**query: str) -> list[str]:
        return [row["name"] for row in program.get("datasets/", **query)[1]["data"]]

    assert names(q="cAlm") == ["Calm starter", "Calm"]
    assert names(owner="me") == ["Brief", "Calm"]
    assert names(owner="starters") == ["Calm starter"]
    assert names(kind="texts") == ["Brief"]


def test_pairs_are_replaced_inserted_and_removed(person: User) -> None:
    program = Program(person)
    path = f"datasets/{a_dataset(program)['id']}/pairs/"
    new = {"prompt": "", "positive": "new", "negative": "old"}
    steps = [
        ({"start": 1, "stop": 1, "pairs": [new]}, [PAIRS[0], new, *PAIRS[1:]]),
        ({"start": 0, "stop": 1, "pairs": []}, [new, *PAIRS[1:]]),
        ({"start": 2, "pairs": [new]}, [new, PAIRS[1], new]),
        ({"pairs": PAIRS}, PAIRS),
    ]
    for version, (change, then) in enumerate(steps, 1):
        assert program.put(path, {"version": version, **change})[0] == 200
        assert program.get(path)[1]["pairs"] == then


def test_a_change_to_an_older_version_is_a_conflict_and_changes_nothing(person: User) -> None:
    program = Program(person)
    path = f"datasets/{a_dataset(program)['id']}/"
    assert program.patch(path, {"name": "Calmer", "version": 1})[1]["version"] == 2
    for status, body in (
        program.patch(path, {"name": "Angry", "version": 1}),
        program.put(f"{path}pairs/", {"version": 1, "pairs": []}),
    ):
        assert (status, body["error"]["code"]) == (409, "version_conflict")
    assert program.get(path)[1] | {"updated_at": ""} == program.get(path)[1] | {"name": "Calmer", "updated_at": ""}
    assert program.get(f"{path}pairs/")[1]["n_pairs"] == 3


@pytest.mark.parametrize("window", [{"start": 4}, {"stop": 4}, {"start": 2, "stop": 1}, {"start": -1}])
def test_a_window_that_names_no_pairs_is_refused(person: User, window: dict[str, int]) -> None:
    program = Program(person)
    path = f"datasets/{a_dataset(program)['id']}/pairs/"
    assert program.put(path, {"version": 1, "pairs": [], **window})[0] == 400


def test_a_dataset_cannot_outgrow_its_limit(person: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steering.api.rest.views.datasets.MAX_ROWS", 4)
    program = Program(person)
    path = f"datasets/{a_dataset(program)['id']}/pairs/"
    assert program.put(path, {"version": 1, "start": 3, "pairs": PAIRS[:2]})[0] == 400
    assert program.put(path, {"version": 1, "start": 3, "pairs": PAIRS[:1]})[0] == 200


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_an_export_imports_to_the_same_pairs(person: User, kind: str) -> None:
    program = Program(person)
    program.get(f"datasets/{a_dataset(program)['id']}/export/", format=kind)
    assert f'-v1.{kind}"' in program.last.headers["Content-Disposition"]
    status, body = program.upload("datasets/import/", program.last.content, f"calm-{kind}.{kind}")
    assert (status, body["n_left_out"], body["dataset"]["name"]) == (201, 0, f"Calm {kind}")
    assert program.get(f"datasets/{body['dataset']['id']}/pairs/")[1]["pairs"] == PAIRS


def test_one_wrong_line_refuses_an_import_unless_it_may_be_left_out(person: User) -> None:
    program = Program(person)
    wrong = LINES + b'\n{"prompt": "only"}\nnot json\n'
    status, body = program.upload("datasets/import/", wrong, name="calm.jsonl")
    assert (status, body["error"]["code"]) == (400, "bad_lines")
    assert set(body["error"]["fields"]) == {"line 4", "line 5"}
    assert not Dataset.objects.exists()
    status, body = program.upload("datasets/import/", wrong, skip_bad_lines="true")
    assert status == 201
    assert (body["dataset"]["n_pairs"], [left["line"] for left in body["left_out"]]) == (3, [4, 5])


def test_columns_may_be_named_where_they_cannot_be_guessed(person: User) -> None:
    program = Program(person)
    text = "frage,gut,schlecht\nWarum?,Ruhe.,Wut!\n"
    status, body = program.post("datasets/import/", {"text": text, "name": "Ruhe"})
    assert status == 400
    assert "“gut”" in body["error"]["message"]
    named = {"prompt_column": "frage", "positive_column": "gut", "negative_column": "schlecht"}
    status, body = program.post("datasets/import/", {"text": text, "name": "Ruhe", **named})
    assert status == 201
    pairs = program.get(f"datasets/{body['dataset']['id']}/pairs/")[1]["pairs"]
    assert pairs == [{"prompt": "Warum?", "positive": "Ruhe.", "negative": "Wut!"}]


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b\x00", b"\xff\xfea\x00", b"\xe9", b"{}"])
def test_a_file_that_holds_no_pairs_is_refused(person: User, data: bytes) -> None:
    assert Program(person).upload("datasets/import/", data)[0] == 400


def test_import_wants_a_file_or_a_text(person: User) -> None:
    assert Program(person).post("datasets/import/", {"name": "Nothing"})[0] == 400


def test_a_copy_of_a_starter_belongs_to_the_one_who_asked(person: User) -> None:
    starter = library.dataset_create(owner=None, name="Calm", description="", rows=[])
    program = Program(person)
    assert program.patch(f"datasets/{starter.pk}/", {"name": "Mine"})[0] == 404
    status, copy = program.post(f"datasets/{starter.pk}/copy/")
    assert (status, copy["name"], copy["starter"]) == (201, "Calm, copy", False)
    assert program.post(f"datasets/{starter.pk}/copy/", {"name": "Other"})[1]["name"] == "Other"


def test_deleted_is_gone(person: User) -> None:
    program = Program(person)
    path = f"datasets/{a_dataset(program)['id']}/"
    assert program.delete(path) == (204, None)
    assert program.get(path)[0] == 404


def test_findings_say_what_may_spoil_a_vector(person: User, fake_inference: FakeInference) -> None:
    program = Program(person)
    fake_inference.payload = {"merged": [1]}
    found = program.get(f"datasets/{a_dataset(program, pairs=[*PAIRS, PAIRS[0]])['id']}/findings/")[1]
    assert {"rule": "duplicate", "rows": [4]}.items() <= found["findings"][0].items()
    assert (found["tokens"]["state"], found["tokens"]["rows"]) == ("checked", [2])
