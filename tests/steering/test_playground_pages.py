from __future__ import annotations

import json
import re
import uuid
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client

from inference.errors import InvalidRequest
from inference.types import Positions, Schedule
from steering import gateway
from steering.accounts.models import User
from steering.datasets.starter_catalog import load_starter_datasets
from steering.playground.models import LaneOutput, Run
from steering.playground.schema import Lane, RunSettings, parse_settings
from steering.vectors.models import Vector
from steering.vectors.uses import UseCondition, VectorUse
from tests.fake_inference import FakeInference
from tests.steering.features import SOURCE, a_source
from tests.steering.play import a_run, keep_vector, steered

pytestmark = pytest.mark.django_db(transaction=True)

EVALUATION = {
    "measure": {"description": "Calm words per 100."}, "layer": 2, "strength": 0.3, "n_prompts": 10,
    "base_mean": 0, "steered_mean": 3, "ci": [2, 5], "verdict": "works", "sentence": "It works.",
    "samples": [{"prompt": "Hi", "base": "<script>alert(1)</script>", "steered": "Breathe."}],
}  # fmt: skip


@pytest.fixture
def client(person: User, browser_of: Any, fake_inference: FakeInference) -> Client:
    gateway.model_info()
    return browser_of(person)


def page_of(response: HttpResponse) -> dict[str, Any]:
    found = re.search(r'<script id="page" type="application/json">(.*?)</script>', response.content.decode(), re.S)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def make_run(owner: User, settings: RunSettings | None = None, **changes: Any) -> Run:
    settings = settings or a_run()
    fields = {"title": settings.input[:80], "input": settings.input, "state": "finished", **changes}
    run = Run.objects.create(owner=owner, idem=uuid.uuid4(), settings=settings.to_wire(), **fields)
    for lane in settings.lanes:
        LaneOutput.objects.create(run=run, key=lane.key, state="finished", text=f"answer {lane.key}")
    return run


def starter(slug: str = "calm", **fields: Any) -> Vector:
    vector = keep_vector(None, seed=len(slug))
    Vector.objects.filter(pk=vector.pk).update(slug=slug, **fields)
    return vector


# ---- the playground ----


def test_an_empty_playground_has_base_prompted_and_steered(client: Client) -> None:
    page = page_of(client.get("/playground/"))
    assert [(each["key"], each["name"]) for each in page["settings"]["lanes"]] == [
        ("A", "Base"), ("B", "Prompted"), ("C", "Steered"),
    ]  # fmt: skip
    assert page["run"] is None


def test_a_vector_opens_in_lane_c_as_recommended_with_its_wish_as_a_prompt(client: Client) -> None:
    vector = starter()
    lanes = page_of(client.get(f"/playground/?vector={vector.pk}"))["settings"]["lanes"]
    first = lanes[2]["interventions"][0]
    assert (first["vector"], first["layer"], first["strength"], first["unit"]) == (str(vector.pk), 2, 0.3, "relative")
    assert "calm" in lanes[1]["system_prompt"]


@pytest.mark.parametrize("query", ["vector=nonsense", f"vector={uuid.UUID(int=1)}", f"from={uuid.UUID(int=1)}"])
def test_a_link_to_what_is_not_there_is_a_404(client: Client, query: str) -> None:
    assert client.get(f"/playground/?{query}").status_code == 404


def test_others_vectors_and_runs_are_404(client: Client, stranger: User) -> None:
    vector, run = keep_vector(stranger), make_run(stranger)
    paths = [f"/playground/?vector={vector.pk}", f"/playground/?from={run.pk}", f"/playground/{run.pk}/"]
    assert [client.get(path).status_code for path in paths] == [404] * 3
    posts = [f"/playground/{run.pk}/{action}/" for action in ("rename", "stop", "delete")]
    assert [client.post(path, {"title": "Mine"}).status_code for path in posts] == [404] * 3
    assert Run.objects.get(pk=run.pk).title == "Hello there"


def test_a_saved_run_opens_with_its_settings_and_earlier_turns(client: Client, person: User) -> None:
    first = make_run(person)
    settings = a_run(steered(keep_vector(person)), text="And then?")
    page = page_of(client.get(make_run(person, settings, parent=first).get_absolute_url()))
    assert RunSettings.from_wire(page["settings"]) == settings
    assert page["turns"][0]["answers"]["B"] == {"state": "finished", "text": "answer B"}


def test_a_new_run_takes_the_lanes_of_another(client: Client, person: User) -> None:
    run = make_run(person, a_run(Lane("A", "Only")))
    page = page_of(client.get(f"/playground/?from={run.pk}"))
    assert [each["name"] for each in page["settings"]["lanes"]] == ["Only"]
    assert (page["settings"]["input"], page["run"]) == ("", None)


def test_hostile_text_stays_text(client: Client, person: User) -> None:
    run = make_run(person, a_run(text="</script><img src=x onerror=alert(1)>"))
    for path in (run.get_absolute_url(), "/playground/runs/"):
        assert "<img src=x" not in client.get(path).content.decode()


# ---- the list of runs ----


def test_the_list_shows_own_runs_and_finds_every_word(client: Client, person: User, stranger: User) -> None:
    make_run(person, a_run(text="Late parcel, angry customer"))
    make_run(person, a_run(text="A poem"))
    make_run(stranger, a_run(text="Secret parcel"))
    text = client.get("/playground/runs/?q=parcel+angry").content.decode()
    assert "Late parcel" in text
    assert "A poem" not in text
    assert "Secret" not in client.get("/playground/runs/").content.decode()
    assert "Nothing matches" in client.get("/playground/runs/?q=zebra").content.decode()


def test_a_run_is_renamed_and_an_empty_name_is_refused(client: Client, person: User) -> None:
    run = make_run(person)
    assert client.post(f"/playground/{run.pk}/rename/", {"title": " Late   parcel "}).json() == {"title": "Late parcel"}
    assert client.post(f"/playground/{run.pk}/rename/", {"title": " "}).status_code == 400
    assert Run.objects.get(pk=run.pk).title == "Late parcel"


def test_a_run_is_deleted_and_its_follow_up_stays(client: Client, person: User) -> None:
    run = make_run(person)
    child = make_run(person, parent=run)
    client.post(f"/playground/{run.pk}/delete/")
    assert list(Run.objects.all()) == [child]
    assert client.get(child.get_absolute_url()).status_code == 200


# ---- the guided path ----


def test_the_guided_path_leads_with_what_was_measured_to_work(client: Client) -> None:
    load_starter_datasets()
    weak = starter("calm", evaluation=EVALUATION | {"verdict": "weak"})
    works = starter("tabby-cats", evaluation=EVALUATION)
    response = client.get("/")
    page = page_of(response)
    assert [offer["vector"] for offer in page["starters"]] == [str(works.pk), str(weak.pk)]
    assert page["starters"][0]["example"] == EVALUATION["samples"][0]
    assert "measured: weak here" in response.content.decode()
    assert (page["starters"][0]["layer"], page["starters"][0]["strength"]) == (2, 0.3)
    assert "weak on this model" in page["starters"][1]["says"]


def test_the_guided_path_without_starters_says_what_to_do(client: Client) -> None:
    assert "No starter vectors are loaded yet" in client.get("/").content.decode()


def test_everything_here_needs_a_sign_in(db: None) -> None:
    run = uuid.uuid4()
    paths = ["/", "/playground/", "/playground/runs/", f"/playground/{run}/"]
    assert [Client().get(path).status_code for path in paths] == [302] * 4


# ---- settings ----

VECTOR = str(uuid.uuid4())


def lane(**changes: Any) -> dict[str, Any]:
    return {"key": "A", "name": "x", **changes}


def chip(**changes: Any) -> dict[str, Any]:
    return {"lanes": [lane(interventions=[{"vector": VECTOR, **changes}])]}


BAD = [
    ({"input": " "}, "empty_input"),
    ({"input": "x" * 40_001}, "too_long"),
    ({"lanes": []}, "lane_count"),
    ({"lanes": [lane(key=key) for key in "ABCDEFG"]}, "lane_count"),
    ({"lanes": [lane(), lane()]}, "lane_key"),
    ({"lanes": [lane(key="Z")]}, "lane_key"),
    ({"lanes": [lane(name="")]}, "lane_name"),
    ({"lanes": [lane(interventions=[{"vector": VECTOR}] * 9)]}, "intervention_count"),
    (chip(vector="calm"), "bad_id"),
    (chip(strength=1e9), "strength"),
    (chip(strength=float("nan")), "invalid_field"),
    (chip(positions={"start": 5, "stop": 5}), "positions"),
    (chip(operation="spin"), "invalid_field"),
    (chip(norm_preserving="yes"), "invalid_field"),
    (chip(schedule={"kind": "first", "tokens": 0}), "schedule"),
    (chip(schedule={"kind": "ramp", "tokens": 10**9}), "schedule"),
    (chip(schedule={"kind": "ramp", "tokens": 3}, positions={"generated": False}), "schedule"),
    (chip(condition={"threshold": 0.1}), "condition_on_prompt"),
    (chip(condition={"threshold": 1.5, "decided": "token"}), "threshold"),
    (chip(condition={"threshold": 0.1, "vector": "calm", "decided": "token"}), "bad_id"),
    (chip(condition={"threshold": 0.1, "until": 3}), "invalid_field"),
    ({"sampling": {"max_tokens": 2049}}, "max_tokens"),
    ({"sampling": {"temperature": -1}}, "temperature"),
    ({"sampling": {"top_p": 0}}, "top_p"),
    ({"sampling": {"stop": [""]}}, "stop"),
    ({"sampling": {"seed": -1}}, "seed"),
    ({"sampling": {"heat": 1}}, "invalid_field"),
    ({"mode": "poem"}, "invalid_field"),
]


@pytest.mark.parametrize(("change", "code"), BAD, ids=[f"{code}-{i}" for i, (_, code) in enumerate(BAD)])
def test_settings_that_cannot_be_honoured_are_refused_with_a_sentence(change: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_settings({"input": "Hi", **change})
    assert refusal.value.code == code
    assert refusal.value.message.endswith(".")


def test_settings_survive_the_way_to_the_database_and_back() -> None:
    gate = UseCondition(0.2, VECTOR, 3, "below", "cosine", "prompt", "last")
    late, plan = Positions(prompt=False), Schedule("decay", 12)
    capped = VectorUse(VECTOR, 9, "cap", 0.4, "raw", late, norm_preserving=True, schedule=plan, condition=gate)
    settings = a_run(Lane("A", "Base"), Lane("C", "Steered", "1", "Be kind.", (capped,), "A"), mode="completion")
    assert parse_settings(json.loads(json.dumps(settings.to_wire()))) == settings


def test_a_link_opens_features_each_with_its_sign(client: Client, fake_inference: FakeInference) -> None:
    fake_inference.sources = (a_source(indexed=True),)
    page = page_of(client.get(f"/playground/?feature={SOURCE}/3&feature={SOURCE}/5&against={SOURCE}/7&prompt=Hi"))
    uses = page["settings"]["lanes"][1]["interventions"]
    assert [(use["feature"]["index"], use["strength"], use["unit"]) for use in uses] == [
        (3, 0.333, "max"), (5, 0.333, "max"), (7, -0.333, "max"),
    ]  # fmt: skip
    assert len(page["settings"]["watched"]) == 3 and page["draft"] == "Hi"


@pytest.mark.parametrize("query", ["feature=", "feature=3", f"against={SOURCE}/x", f"feature={SOURCE}/99999", "many"])
def test_a_link_to_no_feature_is_refused(client: Client, fake_inference: FakeInference, query: str) -> None:
    fake_inference.sources = (a_source(),)
    many = "&".join(f"feature={SOURCE}/{n}" for n in range(9))
    assert client.get(f"/playground/?{many if query == 'many' else query}").status_code in (400, 404)
