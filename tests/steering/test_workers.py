from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.urls import reverse

from inference.errors import Unavailable
from inference.types import Pair
from steering.accounts.models import User
from steering.datasets.library import dataset_create
from steering.jobs.models import Job
from steering.workers.choice import Served
from tests.fake_inference import MODEL, FakeInference
from tests.steering.play import keep_vector

pytestmark = pytest.mark.django_db

OTHER = "org/another-model"


@pytest.fixture
def admin(db: None) -> User:
    return User.objects.first_account()


@pytest.fixture
def two_models(fake_inference: FakeInference) -> FakeInference:
    fake_inference.loaded = {"worker-1": MODEL, "worker-2": OTHER}
    return fake_inference


def control(browser: Any, worker: str, command: str, model: str = "") -> str:
    """The page that the answer leads to."""
    answer = browser.post(reverse("workers:control", args=[worker, command]), {"model": model}, follow=True)
    assert answer.status_code == 200
    return str(answer.content.decode())


# ---- the administrator's page ----


def test_the_page_shows_each_worker_with_its_model(browser_of: Any, admin: User, two_models: FakeInference) -> None:
    two_models.draining = {"worker-2"}
    page = browser_of(admin).get(reverse("workers:list")).content.decode()
    assert all(text in page for text in ("worker-1", "worker-2", MODEL, OTHER, "Ready", "Draining"))
    table = browser_of(admin).get(reverse("workers:table")).content.decode()
    assert "<html" not in table
    assert "worker-2" in table


@pytest.mark.parametrize("name", ["list", "table"])
def test_others_find_no_such_page(browser_of: Any, person: User, fake_inference: FakeInference, name: str) -> None:
    assert browser_of(person).get(reverse(f"workers:{name}")).status_code == 404


def test_others_control_nothing(browser_of: Any, person: User, fake_inference: FakeInference) -> None:
    assert browser_of(person).post(reverse("workers:control", args=["fake", "unload"])).status_code == 404
    assert fake_inference.commands == []


@pytest.mark.parametrize("command", ["unload", "drain", "resume"])
def test_a_button_asks_the_worker(browser_of: Any, admin: User, fake_inference: FakeInference, command: str) -> None:
    assert "fake" in control(browser_of(admin), "fake", command)
    assert fake_inference.commands == [("fake", command, "")]


def test_a_model_in_a_folder_is_offered_by_the_folders_name(
    browser_of: Any, admin: User, fake_inference: FakeInference, settings: Any
) -> None:
    settings.STEERBOARD_MODELS = ["default", "org/name", "/models/tiny", "/models/one/twin", "/models/two/twin"]
    page = browser_of(admin).get(reverse("workers:list")).content.decode()
    offered = re.findall(r'<option value="([^"]+)"[^>]*>([^<]+)<', page)
    assert offered[-5:] == [
        ("default", "default"), ("org/name", "org/name"), ("/models/tiny", "tiny"),
        ("/models/one/twin", "/models/one/twin"), ("/models/two/twin", "/models/two/twin"),
    ]  # fmt: skip


def test_a_vector_of_another_served_model_says_where_to_choose_that(
    browser_of: Any, person: User, two_models: FakeInference
) -> None:
    vector = keep_vector(person, model=OTHER)
    page = browser_of(person).get(vector.get_absolute_url()).content.decode()
    assert f"Choose {OTHER} at the top of the page" in page


def test_a_model_is_loaded_only_where_the_settings_name_it(
    browser_of: Any, admin: User, fake_inference: FakeInference, settings: Any
) -> None:
    settings.STEERBOARD_MODELS = ["default", "org/allowed"]
    browser = browser_of(admin)
    assert "model_not_allowed" in control(browser, "fake", "load", "org/from-the-hub")
    assert fake_inference.commands == []
    control(browser, "fake", "load", "org/allowed")
    assert fake_inference.commands == [("fake", "load", "org/allowed")]


def test_a_worker_that_is_gone_is_said_with_its_code(
    browser_of: Any, admin: User, fake_inference: FakeInference
) -> None:
    assert "worker_not_found" in control(browser_of(admin), "gone", "drain")


def test_a_command_that_does_not_exist_is_not_found(browser_of: Any, admin: User, fake_inference: Any) -> None:
    assert browser_of(admin).post(reverse("workers:control", args=["fake", "explode"])).status_code == 404


def test_workers_that_cannot_be_asked_are_a_sentence_on_the_page(
    browser_of: Any, admin: User, fake_inference: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def workers() -> None:
        raise Unavailable("redis_unavailable", "Redis cannot be reached.")

    monkeypatch.setattr(fake_inference, "workers", workers)
    page = browser_of(admin).get(reverse("workers:list")).content.decode()
    assert "Redis cannot be reached." in page


# ---- choosing among several ----


def page_data(response: Any) -> dict[str, Any]:
    text = re.search(r'<script id="page" type="application/json">(.*?)</script>', response.content.decode(), re.DOTALL)
    assert text
    data: dict[str, Any] = json.loads(text[1])
    return data


def test_one_model_leaves_nothing_to_choose(browser_of: Any, person: User, fake_inference: FakeInference) -> None:
    browser = browser_of(person)
    data = page_data(browser.get(reverse("playground:home")))
    assert (data["models"], data["settings"]["model"]) == ([], "")
    assert 'name="model"' not in browser.get(reverse("vectors:build")).content.decode()


def test_a_choice_is_remembered_by_every_page(browser_of: Any, person: User, two_models: FakeInference) -> None:
    browser = browser_of(person)
    browser.post(reverse("workers:choose"), {"model": OTHER, "next": "/jobs/"})
    data = page_data(browser.get(reverse("playground:home")))
    assert (data["settings"]["model"], data["model"]["id"]) == (OTHER, OTHER)
    assert {model["id"] for model in data["models"]} == {MODEL, OTHER}
    assert browser.get("/status.json").json()["model"]["id"] == OTHER


def test_a_choice_that_is_not_served_any_more_counts_for_nothing(
    browser_of: Any, person: User, two_models: FakeInference
) -> None:
    browser = browser_of(person)
    browser.post(reverse("workers:choose"), {"model": "org/gone"})
    assert browser.get("/status.json").json()["model"]["id"] in (MODEL, OTHER)


def test_a_choice_does_not_send_the_browser_to_another_host(browser_of: Any, person: User, two_models: Any) -> None:
    answer = browser_of(person).post(reverse("workers:choose"), {"model": OTHER, "next": "https://elsewhere.example/"})
    assert answer["Location"] == "/"


def test_vectors_are_usable_on_the_chosen_model_only(browser_of: Any, person: User, two_models: FakeInference) -> None:
    vector, browser = keep_vector(person, model=OTHER), browser_of(person)
    usable = []
    for model in (MODEL, OTHER):
        browser.post(reverse("workers:choose"), {"model": model})
        listed = browser.get(reverse("vectors:library")).json()["vectors"]
        usable.append(next(entry["usable"] for entry in listed if entry["id"] == str(vector.pk)))
    assert usable == [False, True]


@pytest.mark.django_db(transaction=True)
def test_a_vector_is_built_on_the_model_that_was_picked(
    browser_of: Any, person: User, two_models: FakeInference
) -> None:
    rows = [Pair(f"yes {n}", f"no {n}") for n in range(4)]
    dataset = dataset_create(owner=person, name="Two", description="", rows=rows)
    form = {"dataset": str(dataset.pk), "method": "caa", "model": OTHER}
    browser_of(person).post(reverse("vectors:build"), form)
    assert Job.objects.get().request["model"] == OTHER


def test_the_only_model_has_no_name_in_requests(fake_inference: FakeInference) -> None:
    info = fake_inference.served(MODEL)
    assert (Served(info).name, Served(info, (info, info)).name) == ("", MODEL)


# ---- health ----


def test_readiness_names_what_is_missing(browser_of: Any, client: Any, fake_inference: FakeInference) -> None:
    assert client.get("/readyz").status_code == 200
    fake_inference.state = "loading"
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]["worker"]) == (503, "no worker is ready (loading)")
    assert client.get("/livez").json() == {"alive": True}
