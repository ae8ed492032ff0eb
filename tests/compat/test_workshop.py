"""The workshop's three calls, its page, and its commands."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import httpx2
import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from steering import draining
from steering.access.models import LedgerEntry
from steering.accounts.models import User
from steering.compat.management.commands import workshop
from steering.compat.workshop.personas import PERSONAS
from steering.datasets.starter_catalog import load_starter_datasets
from steering.vectors.models import Vector
from steering.vectors.starters import load_starter_vectors
from tests.fake_inference import TEXT, FakeInference
from tests.openai.server import Server
from tests.steering.rest import Program

pytestmark = pytest.mark.django_db(transaction=True)
PROMPT = "The future of technology is"
FACTS = {"prompt", "steering", "strength", "layer", "seed", "model"}


@pytest.fixture
def program(person: User, fake_inference: FakeInference) -> Program:
    load_starter_datasets()
    load_starter_vectors()
    return Program(person)


@pytest.fixture
def guest(program: Program, person: User, settings: Any) -> Client:
    settings.WORKSHOP_HOST = person.email
    return Client()


def test_the_three_calls_have_the_fields_of_the_documentation(program: Program) -> None:
    status, one = program.post(
        "/workshop/generate", {"prompt": PROMPT, "steering": "weeknd", "max_length": 50, "temperature": 0.7}
    )
    assert status == 200 and set(one) == FACTS | {"text"}
    assert (one["prompt"], one["steering"], one["strength"]) == (PROMPT, "weeknd", 1.0)
    status, both = program.post("/workshop/compare", {"prompt": PROMPT, "steering": "toronto", "max_length": 80})
    assert status == 200 and set(both) == FACTS | {"base", "steered"}
    status, some = program.get("/workshop/examples")
    assert {example["steering"] for example in some["examples"]} == {persona.key for persona in PERSONAS}
    assert all(set(example) == {"prompt", "steering", "name"} for example in some["examples"])


def test_what_the_model_is_asked_is_what_was_sent(program: Program, fake_inference: FakeInference) -> None:
    body = {"prompt": PROMPT, "steering": "tabby-cats", "max_length": 12, "temperature": 0.2, "seed": 3, "strength": 2}
    _, answer = program.post("/workshop/compare", body)
    base, steered = fake_inference.requests
    vector = Vector.objects.get(slug="tabby-cats")
    (edit,) = steered.interventions
    assert not base.interventions and edit.vector_id == vector.content_id
    assert edit.layers == (answer["layer"],) == (vector.evaluation["layer"],)
    assert (edit.strength, edit.unit) == (pytest.approx(2 * vector.evaluation["strength"]), "relative")
    assert {r.prompt for r in (base, steered)} == {PROMPT} and base.id == steered.id
    assert [(r.sampling.max_tokens, r.sampling.temperature, r.sampling.seed) for r in (base, steered)] == [
        (12, 0.2, 3)
    ] * 2


def test_without_a_persona_the_base_writes(program: Program, fake_inference: FakeInference) -> None:
    assert program.post("/workshop/generate", {"prompt": PROMPT})[1]["text"].strip() == TEXT
    assert program.post("/workshop/generate", {"prompt": PROMPT, "steering": "none"})[1]["steering"] is None
    assert not any(request.interventions for request in fake_inference.requests)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 422, "prompt"),
        ({"prompt": " "}, 422, "Write a prompt"),
        ({"prompt": 5}, 422, "string"),
        ({"prompt": PROMPT, "steering": "toront"}, 422, "Did you mean toronto?"),
        ({"prompt": PROMPT, "max_length": 0}, 422, "max_length"),
        ({"prompt": PROMPT, "strength": 99}, 422, "doses"),
        ({"prompt": PROMPT, "layer": 400}, 422, "layer"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(program: Program, body: Any, status: int, says: str) -> None:
    got, answer = program.post("/workshop/generate", body)
    assert (got, list(answer)) == (status, ["error"]) and says in answer["error"], answer


def test_a_spent_quota_and_a_restart_have_their_statuses(
    program: Program, person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = Program(person, tokens_per_day=1)
    status, answer = poor.post("/workshop/generate", {"prompt": PROMPT})
    assert status == 429 and list(answer) == ["error"]
    monkeypatch.setattr(draining, "active", lambda: True)
    status, answer = program.post("/workshop/compare", {"prompt": PROMPT, "steering": "weeknd"})
    assert status == 503 and "Try again" in answer["error"] and program.last["Retry-After"] == "3"


def test_a_persona_without_a_vector_says_how_to_build_it(program: Program) -> None:
    Vector.objects.filter(slug="toronto").delete()
    status, answer = program.post("/workshop/compare", {"prompt": PROMPT, "steering": "toronto"})
    assert status == 404 and "manage.py workshop_vectors" in answer["error"]


def test_strangers_get_in_only_while_the_workshop_is_open(guest: Client, person: User, settings: Any) -> None:
    body = json.dumps({"prompt": PROMPT, "steering": "weeknd"})
    assert guest.get("/workshop/").status_code == 200
    assert guest.post("/workshop/generate", body, content_type="application/json").status_code == 200
    assert LedgerEntry.objects.get().user == person
    assert guest.post("/workshop/generate", body, content_type="text/plain").status_code == 415
    settings.WORKSHOP_HOST = ""
    assert guest.post("/workshop/generate", body, content_type="application/json").status_code == 401
    assert guest.get("/workshop/")["Location"].startswith("/accounts/")
    person.is_active, settings.WORKSHOP_HOST = False, person.email
    person.save()
    assert guest.get("/workshop/examples").status_code == 401


def test_a_session_writes_only_with_the_pages_token(program: Program, person: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(person)
    answer = browser.post("/workshop/generate", json.dumps({"prompt": PROMPT}), content_type="application/json")
    assert answer.status_code == 403


def test_the_page_tells_what_was_measured(guest: Client) -> None:
    page = guest.get("/workshop/").content.decode()
    assert page.count('name="steering"') == 3 and "measured: works" in page and "measured: does not work" in page


async def _pieces(url: str, key: str) -> list[dict[str, Any]]:
    body = {"prompt": "A calm", "steering": "tabby_cats", "max_length": 6, "stream": True}
    async with httpx2.AsyncClient(timeout=120) as http:
        answer = await http.post(f"{url}/workshop/compare", json=body, headers={"Authorization": f"Bearer {key}"})
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


def test_a_stream_from_a_real_server_adds_up_to_the_answer(server: Server) -> None:
    *pieces, last = asyncio.run(_pieces(server.url, server.key("all")))
    assert last["status"] == "complete" and {piece["lane"] for piece in pieces} == {"base", "steered"}
    for lane in ("base", "steered"):
        assert "".join(piece["text"] for piece in pieces if piece["lane"] == lane) == last["result"][lane]
    assert last["result"]["base"] != last["result"]["steered"]


def test_what_the_model_refuses_is_said_with_a_status(server: Server) -> None:
    body = {"prompt": "A calm", "steering": "toronto", "temperature": -1}
    answer = httpx2.post(
        f"{server.url}/workshop/generate", json=body, headers={"x-api-key": server.key("all")}, timeout=60
    )
    assert answer.status_code == 422 and "temperature" in answer.json()["error"]


# ---- commands ----


def test_the_workshop_is_served_as_the_environment_says(
    program: Program, person: User, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    monkeypatch.setattr(workshop, "call_command", lambda name, **options: called.append((name, options)))
    for name, value in {"HOST": "127.0.0.1", "PORT": "5050", "STRENGTH": "3.0"}.items():
        monkeypatch.setenv(name, value)
    settings.WORKSHOP_HOST, settings.WORKSHOP_STRENGTH = "", 1.0
    call_command("workshop", user=person.email, stdout=io.StringIO())
    assert (person.email, 3.0) == (settings.WORKSHOP_HOST, settings.WORKSHOP_STRENGTH)
    assert [name for name, _ in called] == ["prepare", "serve"]
    assert (called[1][1]["host"], called[1][1]["port"]) == ("127.0.0.1", 5050)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PORT", "many", "PORT"),
        ("STRENGTH", "loud", "STRENGTH"),
        ("STRENGTH", "90", "doses"),
        ("HOST", "0.0.0.0", "ALLOWED_HOSTS"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(
    program: Program, name: str, value: str, says: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workshop, "call_command", lambda *_, **__: None)
    monkeypatch.setenv(name, value)
    settings.WORKSHOP_HOST, settings.WORKSHOP_STRENGTH = "", 1.0
    with pytest.raises(CommandError, match=says):
        call_command("workshop", stdout=io.StringIO())


def test_the_smoke_test_writes_every_persona_and_names_what_is_missing(
    program: Program, fake_inference: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steering.gateway.close", lambda: None)
    said = io.StringIO()
    call_command("workshop_smoke", stdout=said)
    assert all(persona.name in said.getvalue() for persona in PERSONAS)
    Vector.objects.filter(slug="weeknd").delete()
    with pytest.raises(CommandError, match="The Weeknd has no vector"):
        call_command("workshop_smoke", stdout=said)


def test_the_vectors_command_reads_as_it_is_told(
    program: Program, fake_inference: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it builds, and a Find from there, is `tests/steering/test_named_presets.py`'s."""
    asked: list[Any] = []

    def measured(name: str, **settings: Any) -> Vector:
        asked.append((name, settings["reading"], settings["effort"].layers))
        return Vector.objects.get(slug=name)

    monkeypatch.setattr("steering.gateway.close", lambda: None)
    monkeypatch.setattr("steering.experiments.named.measured", measured)
    said = io.StringIO()
    options = {"pooling": "window", "window": 4, "layers": 2}
    call_command("workshop_vectors", "tabby-cats", "toronto", stdout=said, **options)
    reading = {"pooling": "window", "window": 4, "chat": False}
    assert asked == [("tabby-cats", reading, 2), ("toronto", reading, 2)]
    assert "tabby_cats: layer" in said.getvalue()
    with pytest.raises(CommandError, match="There is no persona"):
        call_command("workshop_vectors", "dogs", stdout=said)
    with pytest.raises(CommandError, match="window"):
        call_command("workshop_vectors", stdout=said, window=0)
