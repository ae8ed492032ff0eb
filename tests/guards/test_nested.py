"""One's own request that names what is somebody else's: it is answered as if that did not exist; nothing begins."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from steering.access.keys import create_key
from steering.access.models import SCOPES
from steering.accounts.models import User
from steering.jobs.models import Job
from steering.playground.models import Run
from steering.presets.models import Preset
from tests.fake_inference import FakeInference
from tests.guards.matrix import MODEL
from tests.guards.world import World

pytestmark = pytest.mark.django_db(transaction=True)

Ask = Callable[[World, dict[str, Any]], tuple[str, str, Any]]  # (method, address, body) that names `things`


@pytest.fixture
def world(fake_inference: FakeInference) -> World:
    return World(fake_inference)


def program(owner: User) -> Client:
    _, secret = create_key(owner=owner, name=uuid.uuid4().hex, scopes=list(SCOPES))
    return Client(headers={"authorization": f"Bearer {secret}"})


def lanes(**use: Any) -> list[dict[str, Any]]:
    return [{"name": "One", "interventions": [{"strength": 0.3, **use}]}]


def chat(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, **more}


def run(**more: Any) -> dict[str, Any]:
    return {"input": "Hi", "lanes": [{"name": "One"}], **more}


def preset(vector: Any) -> dict[str, Any]:
    return {"name": f"mine-{uuid.uuid4().hex[:6]}", "uses": [{"vector": str(vector.pk), "strength": 0.3}]}


REST: dict[str, Ask] = {
    "a vector in a lane": lambda w, t: ("POST", "rest:runs", run(lanes=lanes(vector=str(t["vector"].pk)))),
    "a run as parent": lambda w, t: ("POST", "rest:runs", run(parent=str(t["run"].pk))),
    "a run to do again": lambda w, t: ("POST", "rest:runs", run(version_of=str(t["run"].pk))),
    "a dataset in a build": lambda w, t: ("POST", "rest:vector-build", {"dataset": str(t["dataset"].pk)}),
    "a vector in a preset": lambda w, t: ("POST", "rest:presets", preset(t["vector"])),
}
OPENAI: dict[str, Ask] = {
    "a vector": lambda w, t: (
        "POST", "openai:chat", chat(steering={"vectors": [{"vector": str(t["vector"].pk), "strength": 0.3}]})
    ),
    "a vector of Mechanex's field": lambda w, t: (
        "POST", "openai:chat", chat(steering_vector=str(t["vector"].pk), steering_strength=0.3)
    ),
    "a preset of the body": lambda w, t: (
        "POST", "openai:chat", chat(steering={"preset": t["preset"].full_model_name.partition("::")[2]})
    ),
    "a preset by its full name": lambda w, t: ("POST", "openai:chat", chat(model=t["preset"].full_model_name)),
    "a preset of completions": lambda w, t: (
        "POST", "openai:completions", {"model": t["preset"].full_model_name, "prompt": "Hi", "max_tokens": 3}
    ),
    "a preset of responses": lambda w, t: (
        "POST", "openai:responses", {"model": t["preset"].full_model_name, "input": "Hi", "max_output_tokens": 3}
    ),
}  # fmt: skip


def send(client: Client, ask: Ask, world: World, things: dict[str, Any]) -> Any:
    method, name, body = ask(world, things)
    return client.generic(method, reverse(name), json.dumps(body), content_type="application/json")


@pytest.mark.parametrize("what", [*REST, *OPENAI])
def test_what_is_somebody_elses_is_not_there_for_a_program(
    world: World, fake_inference: FakeInference, what: str
) -> None:
    ask = (REST | OPENAI)[what]
    kept = {model: model.objects.count() for model in (Run, Job, Preset)}
    theirs = send(program(world.stranger), ask, world, world.owned)
    assert theirs.status_code in (400, 404), theirs.content  # 400: a field of a form names nothing
    assert {model: model.objects.count() for model in kept} == kept
    assert (fake_inference.requests, fake_inference.jobs) == ([], [])


@pytest.mark.parametrize("what", [*REST, *OPENAI])
def test_an_invented_one_is_answered_in_the_same_words(world: World, what: str) -> None:
    """So that nobody learns from an answer which ids there are."""
    ask = (REST | OPENAI)[what]

    class Nowhere:
        pk = uuid.uuid4()
        full_model_name = f"{MODEL}::charlie-999/none@1.0"

    client = program(world.stranger)
    real, invented = (send(client, ask, world, t) for t in (world.owned, dict.fromkeys(world.owned, Nowhere())))
    assert (real.status_code, shape(real)) == (invented.status_code, shape(invented))


def shape(response: Any) -> Any:
    return response.json()["error"]["code"]


@pytest.mark.parametrize("what", [*REST, *OPENAI])
def test_ones_own_is_taken(world: World, what: str) -> None:
    """Or the tests above would show nothing."""
    ask = (REST | OPENAI)[what]
    mine = send(program(world.owner), ask, world, world.owned)
    assert mine.status_code in (200, 201, 202), mine.content


# ---- pages ----


def test_a_page_builds_from_no_dataset_of_somebody_else(world: World) -> None:
    client, before = world.caller("stranger"), Job.objects.filter(owner=world.stranger).count()
    for pk in (world.owned["dataset"].pk, uuid.uuid4()):
        response = client.post(reverse("vectors:build"), {"name": "x", "dataset": str(pk), "method": "mean_difference"})
        assert response.status_code == 200
        assert "dataset" in response.context["form"].errors
    assert Job.objects.filter(owner=world.stranger).count() == before


def test_the_playground_opens_neither_the_vector_nor_the_run_of_somebody_else(world: World) -> None:
    client = world.caller("stranger")
    for name, thing in (("vector", "vector"), ("from", "run")):
        assert client.get(reverse("playground:home"), {name: str(world.owned[thing].pk)}).status_code == 404
        assert client.get(reverse("playground:home"), {name: str(world.theirs[thing].pk)}).status_code == 200


def test_a_saved_lane_can_use_no_vector_of_somebody_else(world: World) -> None:
    for who, status in (("stranger", 404), ("owner", 200)):
        content = {"uses": [{"vector": str(world.owned["vector"].pk), "strength": 0.3}]}
        body = {"name": "taken", "version": "1.0", "content": content}
        response = world.caller(who).post(reverse("presets:save"), body, content_type="application/json")
        assert response.status_code in (status, 201 if status == 200 else status), response.content
