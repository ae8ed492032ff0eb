"""What browsers are told, and what they tell us back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.conf import settings as product
from django.test import Client

from steering import metrics
from steering.accounts.models import User
from webapp import csp

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("fake_inference")]

ADDRESSES = ["/accounts/signin/", "/nowhere/", "/livez", "/static/css/app.css", "/v1/models", "/api/v1/datasets"]
OLD = {
    "csp-report": {
        "document-uri": "https://steer.example/accounts/link/top-secret/",
        "violated-directive": "script-src-elem 'self'",
        "effective-directive": "script-src-elem",
        "blocked-uri": "https://evil.example/x.js?stolen=secret",
        "source-file": "https://steer.example/playground/secret/",
        "script-sample": "a secret sample",
        "line-number": 12,
    }
}
NEW = [
    {"type": "csp-violation", "body": {"effectiveDirective": "img-src", "blockedURL": "inline", "lineNumber": 3}},
    {"type": "deprecation", "body": {"id": "x"}},
]


@pytest.fixture(autouse=True)
def fresh_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csp, "allowance", csp.Allowance(csp.PER_MINUTE))


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_answer_carries_the_policies(client: Client, address: str) -> None:
    response = client.get(address)
    policy = response["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "report-uri /csp-report" in policy
    assert "unsafe" not in policy
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Referrer-Policy"] == "same-origin"
    assert response["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in response["Permissions-Policy"]
    assert "Server" not in response


def test_over_https_browsers_also_get_the_newer_way_to_report(client: Client) -> None:
    plain, secure = client.get("/accounts/signin/"), client.get("/accounts/signin/", secure=True)
    assert "report-to" not in plain["Content-Security-Policy"]
    assert secure["Content-Security-Policy"].endswith("report-to csp")
    assert secure["Reporting-Endpoints"] == 'csp="/csp-report"'


def send(client: Client, body: Any, content_type: str = "application/csp-report") -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/csp-report", data, content_type=content_type)


def test_a_report_is_counted_and_logged_without_what_could_be_secret(client: Client, caplog: Any) -> None:
    counter = metrics.csp_reports.labels("script-src-elem")._value
    before = counter.get()
    assert send(client, OLD).status_code == 204
    assert counter.get() == before + 1
    (record,) = [record for record in caplog.records if record.name == "webapp.csp"]
    assert record.facts["blocked"] == "https://evil.example"
    assert "secret" not in f"{record.getMessage()} {record.facts}"


def test_the_newer_form_is_understood(client: Client, caplog: Any) -> None:
    assert send(client, NEW, "application/reports+json").status_code == 204
    (record,) = [record for record in caplog.records if record.name == "webapp.csp"]
    assert record.facts == {"directive": "img-src", "blocked": "inline", "source": "", "line": "3"}


NONSENSE = [
    (b"", "application/csp-report"),
    (b"{", "application/csp-report"),
    (b"[" * 9000, "application/json"),
    (b"[]", "application/reports+json"),
    (b'{"csp-report": 7}', "application/csp-report"),
    (b'[7, {"type": "csp-violation", "body": 7}]', "application/reports+json"),
    (json.dumps(OLD).encode(), "text/html"),
    (b'{"csp-report": {"x": "' + b"y" * 20_000 + b'"}}', "application/csp-report"),
    (b"\xff\xfe", "application/json"),
]


@pytest.mark.parametrize(("body", "content_type"), NONSENSE)
def test_what_is_no_report_is_refused_and_writes_nothing(
    client: Client, caplog: Any, body: bytes, content_type: str
) -> None:
    assert send(client, body, content_type).status_code == 400
    assert [record for record in caplog.records if record.name == "webapp.csp"] == []


def test_an_invented_directive_makes_no_new_series(client: Client) -> None:
    send(client, {"csp-report": {"effective-directive": "evil\nline", "blocked-uri": "http://[bad"}})
    assert metrics.csp_reports.labels("other")._value.get() >= 1
    assert ("evil\nline",) not in metrics.csp_reports._metrics


def test_a_flood_of_reports_is_cut_off(client: Client, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr(csp, "allowance", csp.Allowance(3))
    statuses = [send(client, OLD).status_code for _ in range(8)]
    assert statuses[:3] == [204, 204, 204]
    assert statuses[3:].count(429) >= 4
    assert len([record for record in caplog.records if record.name == "webapp.csp"]) <= 4


# ---- other sites ----

THEIRS = "https://app.example"


@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/datasets", "/datasets/", "/livez"])
def test_without_the_setting_no_other_site_may_read_anything(client: Client, path: str) -> None:
    for method in (client.get, client.options):
        response = method(path, headers={"origin": THEIRS, "access-control-request-method": "POST"})
        assert not [name for name in response.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/datasets"])
def test_a_named_site_may_call_the_apis_with_a_key_and_never_with_cookies(
    client: Client, settings: Any, path: str
) -> None:
    settings.CORS_ORIGINS = [THEIRS]
    asked = {"origin": THEIRS, "access-control-request-method": "POST"}
    preflight = client.options(path, headers=asked)
    assert preflight.status_code == 204
    assert preflight["Access-Control-Allow-Origin"] == THEIRS
    assert "Authorization" in preflight["Access-Control-Allow-Headers"]
    answer = client.get(path, headers={"origin": THEIRS})
    assert answer["Access-Control-Allow-Origin"] == THEIRS
    assert "Origin" in answer["Vary"]
    for response in (preflight, answer):
        assert "Access-Control-Allow-Credentials" not in response


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "https://app.example.evil.example", "*"])
def test_a_site_that_is_not_named_is_not_let_in(client: Client, settings: Any, origin: str) -> None:
    settings.CORS_ORIGINS = [THEIRS]
    response = client.get("/v1/models", headers={"origin": origin})
    assert "Access-Control-Allow-Origin" not in response
    assert "Origin" in response["Vary"]


def test_pages_stay_closed_to_named_sites_too(client: Client, settings: Any) -> None:
    settings.CORS_ORIGINS = [THEIRS]
    assert "Access-Control-Allow-Origin" not in client.get("/datasets/", headers={"origin": THEIRS})


def test_debug_pages_are_off_unless_asked_for() -> None:
    assert product.DEBUG is False


def test_an_error_that_nobody_knows_shows_nothing_of_its_inside(
    monkeypatch: Any, browser_of: Any, person: User
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("hunter2 lies in the stack")

    for place in ("webapp.frame.served", "steering.api.openai.catalog.entries", "steering.gateway.models"):
        monkeypatch.setattr(place, broken)
    client = browser_of(person)
    client.raise_request_exception = False
    for path, accept in (("/status.json", "text/html"), ("/status.json", "application/json"), ("/v1/models", "*/*"),
                         ("/api/v1/models/", "*/*")):  # fmt: skip
        response = client.get(path, headers={"accept": accept})
        text = response.content.decode()
        assert response.status_code == 500
        assert not [word for word in ("hunter2", "Traceback", "RuntimeError", ".py") if word in text]
        assert response["X-Request-ID"].startswith("req_")
        if path.startswith(("/v1", "/api")):
            assert response["Content-Type"] == "application/json"
            assert not response.cookies
