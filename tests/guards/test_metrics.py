"""/metrics counts what happened here, says how things are now, and is not for everybody."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from inference.errors import Unavailable
from inference.types import Failed, GenerationRequest, SamplingParams
from steering import gateway, metrics
from steering.accounts.models import User
from steering.jobs.models import Job
from tests.fake_inference import FakeInference
from tests.guards.asgi import ask
from webapp import metrics as page

pytestmark = pytest.mark.django_db

TOKEN = "m" * 40


def read(client: Client, **headers: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """{(sample, labels): value} of everything /metrics says."""
    response = client.get("/metrics", headers=headers)
    assert response.status_code == 200, response.content
    families = text_string_to_metric_families(response.content.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(found: dict[Any, float], name: str, **labels: str) -> float:
    return found.get((name, tuple(sorted(labels.items()))), 0.0)


@pytest.fixture
def staff(db: None) -> User:
    return User.objects.create_user("staff@example.org", is_staff=True)


@pytest.fixture
def admin(staff: User, browser_of: Any) -> Client:
    return browser_of(staff)


@pytest.mark.usefixtures("fake_inference")
class TestAccess:
    def test_who_is_nobody_is_asked_for_a_token(self, client: Client) -> None:
        response = client.get("/metrics", headers={"accept": "application/json"})
        assert response.status_code == 401
        assert response["WWW-Authenticate"].startswith("Bearer")
        assert b"steerboard_" not in response.content

    def test_an_account_that_is_not_staffs_finds_nothing(self, person: User, browser_of: Any) -> None:
        assert browser_of(person).get("/metrics").status_code == 404

    @pytest.mark.parametrize("sent", ["", "Bearer ", "Bearer x", "Basic " + TOKEN, f"Bearer {TOKEN}x"])
    def test_a_wrong_token_opens_nothing(self, client: Client, settings: Any, sent: str) -> None:
        settings.METRICS_TOKEN = TOKEN
        assert client.get("/metrics", headers={"authorization": sent}).status_code == 401

    def test_without_a_token_in_the_settings_an_empty_one_opens_nothing(self, client: Client, settings: Any) -> None:
        settings.METRICS_TOKEN = ""
        assert client.get("/metrics", headers={"authorization": "Bearer "}).status_code == 401

    def test_the_right_token_opens_it(self, client: Client, settings: Any) -> None:
        settings.METRICS_TOKEN = TOKEN
        assert value(read(client, authorization=f"Bearer {TOKEN}"), "steerboard_up", part="database") == 1


def test_it_says_how_the_engine_and_the_jobs_are_now(
    admin: Client, person: User, fake_inference: FakeInference
) -> None:
    fake_inference.rows = 3
    for state in ("running", "failed", "failed"):
        Job.objects.create(owner=person, kind="k", title="t", state=state)
    found = read(admin)
    model = {"worker": "fake", "model": "SmolLM2-135M-Instruct"}
    assert value(found, "steerboard_engine_rows", **model) == 3
    assert value(found, "steerboard_engine_max_rows", **model) == 64
    assert (value(found, "steerboard_jobs", state="failed"), value(found, "steerboard_jobs", state="running")) == (2, 1)
    assert value(found, "steerboard_workers", state="ready") == 1
    assert value(found, "steerboard_up", part="inference") == 1


def test_completions_tokens_and_failures_are_counted_whoever_asks(admin: Client, fake_inference: FakeInference) -> None:
    before = read(admin)
    asked = [
        GenerationRequest("1", prompt="x", sampling=SamplingParams(max_tokens=5)),
        GenerationRequest("2", "nowhere", prompt="x"),
    ]
    events = [gateway.call(_all(request)) for request in asked]
    failed = events[1][-1]
    assert isinstance(failed, Failed)
    after = read(admin)

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert more("steerboard_completions_total", end="length") == 1
    assert more("steerboard_completions_total", end="failed") == 1
    assert more("steerboard_errors_total", code=failed.code) == 1
    assert more("steerboard_tokens_total", kind="completion") == 5
    assert more("steerboard_tokens_total", kind="prompt") == 12
    assert more("steerboard_first_token_seconds_count") == 1
    assert value(after, "steerboard_running_streams") == 0


async def _all(request: GenerationRequest) -> list[Any]:
    return [event async for event in gateway.inference().generate(request)]


def test_who_leaves_a_completion_early_is_counted_and_runs_no_more(fake_inference: FakeInference) -> None:
    before = metrics.completions.labels("left")._value.get()

    async def leave() -> float:
        stream = gateway.inference().generate(GenerationRequest("1", prompt="x"))
        await anext(stream)
        running = metrics.streams._value.get()
        await stream.aclose()  # type: ignore[attr-defined]
        return running

    assert gateway.call(leave()) == 1
    assert metrics.streams._value.get() == 0
    assert metrics.completions.labels("left")._value.get() == before + 1
    assert fake_inference.rows == 0


def test_what_does_not_answer_is_left_out_and_said(admin: Client, fake_inference: FakeInference, monkeypatch) -> None:
    async def away() -> None:
        raise Unavailable("no_worker", "No worker.")

    def broken() -> None:
        raise OperationalError

    monkeypatch.setattr(fake_inference, "workers", away)
    monkeypatch.setattr(page, "_from_database", broken)
    found = read(admin)
    assert value(found, "steerboard_up", part="inference") == 0
    assert ("steerboard_up", (("part", "database"),)) in found
    assert value(found, "steerboard_up", part="database") == 0
    assert not [name for name, _ in found if name.startswith("steerboard_engine")]


def test_requests_are_counted_by_route_never_by_address(fake_inference: FakeInference) -> None:
    def count(route: str, status: str) -> float:
        return metrics.requests.labels(route, "GET", status)._value.get()

    before = count("livez", "200"), count("unknown", "404"), count("account_login", "200")
    answers = [
        async_to_sync(ask)("GET", path) for path in ("/livez", "/no/secret-1", "/accounts/signin/?next=/secret-2/")
    ]
    assert [answer.status for answer in answers] == [200, 404, 200]
    assert (count("livez", "200"), count("unknown", "404"), count("account_login", "200")) == (
        before[0] + 1,
        before[1] + 1,
        before[2] + 1,
    )
    text = page.generate_latest(metrics.registry).decode()
    assert "secret" not in text
    assert 'steerboard_request_seconds_bucket{le="0.005",route="livez"}' in text


def test_an_invented_method_makes_no_new_series(fake_inference: FakeInference) -> None:
    async_to_sync(ask)("BREW", "/livez")
    text = page.generate_latest(metrics.registry).decode()
    assert "BREW" not in text
    assert 'method="OTHER"' in text
