from __future__ import annotations

import json

import pytest
from django.test import RequestFactory

from inference.errors import Busy
from inference.types import ModelInfo
from steering.accounts.models import User
from webapp import errors, frame
from webapp.middleware import ExplainErrors

pytestmark = pytest.mark.django_db


def test_the_top_bar_names_the_model_and_its_facts(browser_of, person: User, fake_inference) -> None:
    page = browser_of(person).get("/accounts/profile/").content.decode()
    assert "SmolLM2-135M-Instruct" in page
    assert "30 layers · 576 wide · float32 · CPU" in page
    assert "Ready" in page


def test_status_says_what_the_model_does(browser_of, person: User, fake_inference) -> None:
    fake_inference.rows = 2
    status = browser_of(person).get("/status.json").json()
    assert (status["state"], status["detail"]) == ("Writing", "2 rows · queue 0")
    assert status["model"]["n_layers"] == 30


@pytest.mark.parametrize(
    ("info", "state"),
    [
        (ModelInfo("loading", id=""), "Loading"),
        (ModelInfo("failed", id="", problem="The file is missing."), "Not available"),
        (ModelInfo("ready", id="org/model"), "Ready"),
    ],
)
def test_each_state_of_the_model_has_a_word(monkeypatch: pytest.MonkeyPatch, info: ModelInfo, state: str) -> None:
    monkeypatch.setattr("steering.gateway.model_info", lambda: info)
    assert json.loads(frame.status(RequestFactory().get("/status.json")).content)["state"] == state


def test_only_staff_see_the_way_to_the_admin_pages(browser_of, person: User, fake_inference) -> None:
    assert "/admin/" not in browser_of(person).get("/accounts/profile/").content.decode()
    admin = User.objects.first_account()
    assert "/admin/" in browser_of(admin).get("/accounts/profile/").content.decode()


def test_an_error_of_the_model_becomes_a_page_with_its_message_and_a_retry_time(fake_inference) -> None:
    request = RequestFactory().get("/", headers={"Accept": "text/html"})
    error = Busy("queue_full", "32 requests wait already. Try again in 5 s.", retry_after=5)
    response = ExplainErrors(lambda r: None).process_exception(request, error)  # type: ignore[arg-type, return-value]
    assert response is not None
    assert response.status_code == 429
    assert response["Retry-After"] == "5"
    assert "32 requests wait already" in response.content.decode()


def test_a_full_disk_is_named_with_its_cure() -> None:
    error = RuntimeError("could not save")
    error.__cause__ = OSError(28, "No space left on device")
    request = RequestFactory().get("/")
    response = ExplainErrors(lambda r: None).process_exception(request, error)  # type: ignore[arg-type, return-value]
    assert response is not None
    assert response.status_code == 507
    assert "Free some space" in response.content.decode()


def test_the_page_for_our_own_errors_needs_no_database_and_no_person() -> None:
    response = errors.server_error(RequestFactory().get("/"))
    assert response.status_code == 500
    assert "Something broke on our side" in response.content.decode()


def test_a_page_asked_for_in_the_wrong_way_explains_itself(browser_of, person: User, fake_inference) -> None:
    response = browser_of(person).get("/accounts/signout/")
    assert response.status_code == 405
    assert response["Allow"]
    assert "cannot be opened like this" in response.content.decode()
