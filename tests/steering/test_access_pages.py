"""Keys & usage, as people see it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from inference.types import ModelInfo
from steering.access import snippets
from steering.access.admission import reserve, settle
from steering.access.chart import stacked
from steering.access.keys import create_key, find_key
from steering.access.models import ApiKey, LedgerEntry, Limit
from steering.access.principal import Principal
from steering.access.snippets import Example, chat_snippets, example_on, list_snippets
from steering.access.usage import last_days, today
from steering.accounts.models import User
from steering.datasets.starter_catalog import load_starter_datasets
from steering.vectors import starters
from steering.vectors.starters import load_starter_vectors
from tests.fake_inference import MODEL, FakeInference

pytestmark = pytest.mark.django_db

SECRET = re.compile(r"sk-sb-[0-9a-f]{10}-[0-9a-f]{48}")
NEW = {"name": "laptop", "scopes": ["generate"], "lifetime": "90"}


@pytest.fixture(autouse=True)
def model(fake_inference: FakeInference) -> FakeInference:
    return fake_inference


@pytest.fixture
def mira(person: User, browser_of: Any) -> Client:
    browser: Client = browser_of(person)
    return browser


def html(response: Any) -> str:
    text: str = response.content.decode()
    return text


def test_a_person_without_keys_is_offered_one(mira: Client) -> None:
    page = html(mira.get("/keys/"))
    assert "No keys yet" in page and 'href="/keys/new/"' in page
    assert "http://testserver/v1" in page
    assert "Nothing was used in the last 30 days" in page


def test_a_new_key_is_shown_once_with_programs_to_paste(mira: Client, person: User) -> None:
    response = mira.post("/keys/new/", NEW | {"tokens_per_day": "5000", "models": [MODEL]})
    page = html(response)
    secret = SECRET.findall(page)[0]
    assert set(SECRET.findall(page)) == {secret}
    assert "no-store" in response["Cache-Control"]
    assert page.count(secret) >= 4  # to copy, and in three programs
    assert "http://testserver/v1" in page and MODEL in page
    key = find_key(secret)
    assert key is not None and key.owner == person
    assert (key.scopes, key.models, key.tokens_per_day, key.requests_per_minute) == (["generate"], [MODEL], 5000, None)
    assert key.expires_at and timedelta(days=89) < key.expires_at - timezone.now() <= timedelta(days=90)
    for address in ("/keys/", f"/keys/{key.pk}/"):
        assert not SECRET.search(html(mira.get(address)))
        assert key.shown in html(mira.get(address))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": " "}, "Give the key a name"),
        ({"scopes": []}, "Choose at least one thing"),
        ({"scopes": ["generate", "admin"]}, "Select a valid choice"),
        ({"models": ["elsewhere"]}, "Select a valid choice"),
        ({"tokens_per_day": "0"}, "greater than or equal to 1"),
        ({"name": " taken "}, "You have a key called “taken”"),
    ],
)
def test_what_cannot_be_made_says_why(mira: Client, person: User, change: dict[str, Any], says: str) -> None:
    create_key(owner=person, name="taken", scopes=["generate"])
    page = html(mira.post("/keys/new/", NEW | change))
    assert says in page and "The key was not made" in page
    assert ApiKey.objects.count() == 1


def test_only_staff_may_make_a_key_for_administration(person: User, browser_of: Any) -> None:
    person.is_staff = True
    person.save()
    assert SECRET.search(html(browser_of(person).post("/keys/new/", NEW | {"scopes": ["admin"]})))


def test_rotating_and_revoking_ask_first(mira: Client, person: User) -> None:
    key, old = create_key(owner=person, name="laptop", scopes=["generate"])
    assert "Give “laptop” a new secret?" in html(mira.get(f"/keys/{key.pk}/rotate/"))
    assert find_key(old) == key
    new = SECRET.findall(html(mira.post(f"/keys/{key.pk}/rotate/")))[0]
    assert find_key(old) is None and find_key(new) == key
    assert "Revoke “laptop”?" in html(mira.get(f"/keys/{key.pk}/revoke/"))
    page = html(mira.post(f"/keys/{key.pk}/revoke/", follow=True))
    assert "was revoked" in page and "Revoked keys" in page
    for step in ("rotate", "revoke"):
        assert "was revoked before" in html(mira.post(f"/keys/{key.pk}/{step}/", follow=True))
    assert SECRET.search(html(mira.post("/keys/new/", NEW)))  # the name is free again


@pytest.mark.parametrize("address", ["", "rotate/", "revoke/"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_strangers_key_does_not_exist(
    person: User, stranger: User, browser_of: Any, address: str, method: str
) -> None:
    key, secret = create_key(owner=person, name="mine", scopes=["generate"])
    answer = getattr(browser_of(stranger), method)(f"/keys/{key.pk}/{address}")
    assert answer.status_code == (405 if (address, method) == ("", "post") else 404)
    assert find_key(secret) == key
    assert "mine" not in html(browser_of(stranger).get("/keys/"))


def used(who: Principal, prompt: int, answer: int, model: str = MODEL, days_ago: int = 0) -> None:
    held = reserve(who, work="w", kind="generate", model=model, tokens=prompt + answer, source="openai")
    settle(held.id, prompt_tokens=prompt, completion_tokens=answer)
    LedgerEntry.objects.filter(pk=held.id).update(created_at=timezone.now() - timedelta(days=days_ago))


def test_usage_is_shown_by_day_model_and_key(mira: Client, person: User, stranger: User) -> None:
    key, _ = create_key(owner=person, name="laptop", scopes=["generate"])
    used(Principal(person), 1000, 234)
    used(Principal(person, key), 10, 5, model="org/Large", days_ago=3)
    used(Principal(person, key), 10, 5, model="org/Large", days_ago=40)
    used(Principal(stranger), 7, 7, model="org/Foreign")
    page = html(mira.get("/keys/?by=key"))
    assert "1,249 tokens in 2 requests" in page
    assert "Foreign" not in page
    assert f"{today():%-d %b}: Pages, 1,234 tokens" in page
    assert re.search(r"<td>Large</td><td>laptop</td><td class=\"num\">1</td>", page)
    assert "1,264 tokens in 3 requests" in html(mira.get("/keys/?days=90"))
    assert "15 tokens in 1 request," in html(mira.get(f"/keys/{key.pk}/"))


def test_limits_are_shown_with_what_is_left(mira: Client, person: User) -> None:
    Limit.objects.create(user=person, tokens_per_day=2000)
    used(Principal(person), 1000, 234)
    page = html(mira.get("/keys/"))
    assert "1,234 <small>of 2,000</small>" in page


def test_the_page_comes_up_while_no_model_is_there(mira: Client, person: User, model: FakeInference) -> None:
    key, _ = create_key(owner=person, name="laptop", scopes=["generate"])
    model.loaded = {}
    page = html(mira.get(f"/keys/{key.pk}/"))
    assert "put its name in place of MODEL" in page


def test_a_key_that_may_not_generate_gets_programs_that_read(mira: Client, person: User) -> None:
    key, _ = create_key(owner=person, name="reader", scopes=["datasets"])
    page = html(mira.get(f"/keys/{key.pk}/"))
    assert "/api/v1/datasets" in page and "chat/completions" not in page


def test_bars_stand_on_each_other_and_small_series_go_together() -> None:
    days = last_days(7)
    points = [(days[-1], f"model {n}", 100 - n) for n in range(9)] + [(days[0], "model 0", 50)]
    chart = stacked(points, days)
    assert len(chart.series) == 6 and chart.series[0] == "model 0" and chart.series[-1] == "others"
    column = [bar for bar in chart.bars if bar.x == chart.bars[-1].x]
    assert [bar.y for bar in column] == sorted((bar.y for bar in column), reverse=True)
    assert sum(bar.height for bar in column) <= chart.bottom
    assert stacked([], days).bars == ()


def test_the_programs_are_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quotes in a prompt must break none of them. Python is compiled, and a shell reads the words of the command."""
    hostile = Example("It's \"quoted\" $HOME `id` \\ 'twice'", {"vectors": [{"vector": "calm", "strength": 0.3}]})
    monkeypatch.setattr(snippets, "_finders", [lambda model: hostile])
    curl, python, _ = chat_snippets("http://here/v1", "sk-sb-a-b", ModelInfo("ready", id="org/model"))
    compile(python.code, "snippet", "exec")
    said = subprocess.run(
        ["sh", "-c", curl.code.replace("curl", f"{sys.executable} -c 'import sys, json; print(sys.argv[-1])'", 1)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    body = json.loads(said.stdout)
    assert body["messages"][0]["content"] == hostile.prompt
    assert body["steering"] == hostile.steering
    compile(list_snippets("http://here/api/v1/datasets/", "sk-sb-a-b")[1].code, "snippet", "exec")


def test_the_programs_steer_where_a_starter_was_measured_to_work(mira: Client, person: User) -> None:
    load_starter_datasets()
    vectors = {vector.slug: vector for vector in load_starter_vectors()}
    chosen = example_on(ModelInfo("ready", id=vectors["brevity"].model_id))
    measured = json.loads((Path(starters.__file__).parent / "starters" / "brevity.evaluation.json").read_text())
    dose = {key: measured[key] for key in ("layer", "strength")}
    assert chosen.steering["vectors"] == [{"vector": "brevity", **dose, "unit": "relative"}]
    assert example_on(ModelInfo("ready", id="org/unknown")) == Example()
