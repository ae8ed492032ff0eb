"""What every operation of the REST API shares: who asks, the shape of errors, pages, queries."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from steering.access.models import Limit
from steering.accounts.models import User
from steering.datasets.models import Dataset
from tests.steering.rest import PAIRS, Program, a_dataset

pytestmark = pytest.mark.django_db


def code_of(body: Any) -> str:
    assert set(body) == {"error"} and {"code", "message", "request_id"} <= set(body["error"]), body
    return str(body["error"]["code"])


# ---- who asks ----


def test_without_a_key_there_is_only_401(client: Client) -> None:
    response = client.get("/api/v1/datasets/")
    assert response.status_code == 401
    assert code_of(response.json()) == "missing_key"
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_wrong_key_is_refused_even_with_a_session(person: User, browser_of: Any) -> None:
    response = browser_of(person).get("/api/v1/datasets/", headers={"X-API-Key": "sk-sb-0000000000-0"})
    assert response.status_code == 401
    assert code_of(response.json()) == "invalid_key"


def test_a_key_in_a_header_of_its_own_lets_in(person: User, client: Client) -> None:
    response = client.get("/api/v1/datasets/", headers={"X-API-Key": Program(person).secret})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("scope", "path"),
    [
        ("datasets", "datasets/"),
        ("vectors", "vectors/"),
        ("vectors", "presets/"),
        ("generate", "runs/"),
        ("jobs", "jobs/"),
    ],
)
def test_each_noun_needs_its_scope(person: User, scope: str, path: str) -> None:
    others = [s for s in ("generate", "vectors", "datasets", "jobs") if s != scope]
    status, body = Program(person, *others).get(path)
    assert (status, code_of(body)) == (403, "missing_scope")
    assert Program(person, scope).get(path)[0] == 200


def test_a_session_needs_the_forms_token_to_change_something(person: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(person)
    body = {"name": "Calm", "pairs": PAIRS}
    assert browser.get("/api/v1/datasets/").status_code == 200
    refused = browser.post("/api/v1/datasets/", body, content_type="application/json")
    assert (refused.status_code, code_of(refused.json())) == (403, "csrf")
    browser.cookies["csrftoken"] = "x" * 32
    headers = {"X-CSRFToken": "x" * 32}
    taken = browser.post("/api/v1/datasets/", body, content_type="application/json", headers=headers)
    assert taken.status_code == 201


def test_strangers_get_404_for_everything_that_is_not_theirs(person: User, stranger: User) -> None:
    owner, other = Program(person), Program(stranger)
    path = f"datasets/{a_dataset(owner)['id']}/"
    calls = [
        other.get(path), other.patch(path, {"name": "Mine"}), other.delete(path), other.get(f"{path}pairs/"),
        other.put(f"{path}pairs/", {"version": 1, "pairs": []}), other.post(f"{path}copy/"),
        other.get(f"{path}export/"), other.get(f"{path}findings/"),
    ]  # fmt: skip
    assert {(status, code_of(body)) for status, body in calls} == {(404, "not_found")}


# ---- one shape for every failure ----


def test_what_no_address_is_says_so_as_json(person: User) -> None:
    program = Program(person)
    status, body = program.get("nothing/here/")
    assert (status, code_of(body)) == (404, "no_such_address")
    status, body = program.post("datasets", {})
    assert status == 404
    assert "end with a slash" in body["error"]["message"]


def test_a_method_that_is_not_taken_is_405_with_those_that_are(person: User) -> None:
    program = Program(person)
    status, body = program.delete("datasets/")
    assert (status, code_of(body)) == (405, "method_not_allowed")
    assert program.last.headers["Allow"] == "GET, POST, HEAD"


def test_a_body_of_another_kind_is_415(person: User) -> None:
    program = Program(person)
    response = program.client.post(
        "/api/v1/datasets/", "name=Calm", content_type="text/plain", headers=program._headers()
    )
    assert (response.status_code, code_of(response.json())) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "text",
    [
        '{"name": ',
        '{"name": NaN}',
        '{"name": "a", "name": "b"}',
        "[" * 3000 + "]" * 3000,
        '{"a":' * 300 + "1" + "}" * 300,
        "\xff",
    ],
)
def test_broken_json_is_400(person: User, text: str) -> None:
    program = Program(person)
    response = program.client.post(
        "/api/v1/datasets/", text.encode("latin-1"), content_type="application/json", headers=program._headers()
    )
    assert (response.status_code, code_of(response.json())) == (400, "parse_error")


def test_a_body_that_is_too_large_is_413(person: User, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    status, body = Program(person).post("datasets/", {"name": "x" * 2000, "pairs": PAIRS})
    assert (status, code_of(body)) == (413, "too_large")


def test_a_body_of_unknown_length_is_refused_and_not_taken_for_none(person: User) -> None:
    program = Program(person)
    headers = program._headers() | {"Transfer-Encoding": "chunked"}
    response = program.client.post("/api/v1/datasets/", {}, content_type="application/json", headers=headers)
    assert (response.status_code, code_of(response.json())) == (411, "length_required")


def test_every_field_at_fault_is_named_by_its_path(person: User) -> None:
    pairs = [PAIRS[0], {"positive": 3, "negative": "x"}, {"positive": "a\0b", "negative": "x", "colour": "red"}]
    status, body = Program(person).post("datasets/", {"name": " ", "pairs": pairs, "owner": 1})
    assert (status, code_of(body)) == (400, "invalid_request")
    assert set(body["error"]["fields"]) == {"owner"}  # what is not known comes first
    _, body = Program(person).post("datasets/", {"name": " ", "pairs": pairs})
    assert set(body["error"]["fields"]) == {"name", "pairs.1.positive", "pairs.2.colour"}
    assert body["error"]["message"].startswith("name: ")


@pytest.mark.parametrize(
    "wrong", [{"name": 5}, {"name": True}, {"name": None}, {"name": "x" * 121}, {"description": ["a"]}, {"pairs": {}}]
)
def test_only_what_a_field_names_is_taken(person: User, wrong: Any) -> None:
    status, body = Program(person).post("datasets/", {"name": "Calm", "pairs": PAIRS} | wrong)
    assert status == 400
    assert set(body["error"]["fields"]) == set(wrong)


def test_a_bug_of_ours_is_a_500_in_the_same_shape(person: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steering.api.rest.views.jobs.newest_first", lambda *_: 1 / 0)
    status, body = Program(person).get("jobs/")
    assert (status, code_of(body)) == (500, "server_error")


def test_the_request_id_of_an_error_is_that_of_its_header(person: User) -> None:
    program = Program(person)
    _, body = program.get("jobs/", state="sleepy")
    assert body["error"]["request_id"] == program.last.headers["X-Request-ID"]


# ---- queries and pages ----


def test_filters_that_do_not_exist_are_refused(person: User) -> None:
    program = Program(person)
    assert program.get("datasets/", colour="red")[0] == 400
    assert program.get("datasets/", limit="0")[0] == 400
    assert program.get("datasets/", limit="101")[0] == 400
    assert program.get("datasets/?owner=me&owner=starters")[0] == 400


def test_pages_hold_every_row_once_though_rows_come_and_go(person: User) -> None:
    now = timezone.now()
    rows = [Dataset.objects.create(owner=person, name=f"n{i}", created_at=now) for i in range(7)]  # all at once
    program, seen, cursor = Program(person), [], ""
    for _ in range(10):
        status, page = program.get("datasets/", limit=2, owner="me", **({"cursor": cursor} if cursor else {}))
        assert status == 200
        seen += [row["id"] for row in page["data"]]
        Dataset.objects.create(owner=person, name="newer")
        Dataset.objects.filter(pk=seen[-1]).delete()  # the row that the cursor names
        if (cursor := page["next_cursor"]) is None:
            break
    assert sorted(seen) == sorted(str(row.pk) for row in rows)


@pytest.mark.parametrize("cursor", ["x", "!!", "bnVsbA", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OjA", "é", "\0"])
def test_a_cursor_that_is_not_ours_is_refused(person: User, cursor: str) -> None:
    assert Program(person).get("datasets/", cursor=cursor)[0] == 400


def test_answers_say_what_is_left_of_the_limits(person: User) -> None:
    program = Program(person, requests_per_minute=5)
    Limit.objects.create(user=person, tokens_per_day=1000)
    program.get("jobs/")
    assert program.last.headers["x-ratelimit-limit-requests"] == "5"
    assert program.last.headers["x-ratelimit-remaining-tokens"] == "1000"


# ---- the page and the document ----


def test_the_page_draws_the_document_with_scripts_of_this_server_alone(person: User, browser_of: Any) -> None:
    page = browser_of(person).get("/api/docs/")
    text = page.content.decode()
    assert page.status_code == 200
    assert 'data-schema="/api/v1/schema/"' in text
    assert re.findall(r"<script(?![^>]*src=)|<style|\son\w+=", text) == []
    sources = re.findall(r'(?:src|href)="([^"#]+)', text)
    assert [source for source in sources if "//" in source] == []
    assert [s for s in sources if "swagger" in s and browser_of(person).get(s).status_code != 200] == []
    assert Client().get("/api/docs/").status_code == 302


def test_the_document_is_valid_and_without_warnings() -> None:
    text = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=text)
    assert "/api/v1/runs/{id}/events/" in text.getvalue()


def test_the_document_names_every_address_that_there_is(client: Client) -> None:
    from steering.api.rest.urls import urlpatterns

    document = client.get("/api/v1/schema/").json()
    routes = {str(p.pattern) for p in urlpatterns if p.name not in ("schema", "no-such-address")}
    plain = {re.sub(r"<\w+:(\w+)>", r"{\1}", route) for route in routes}
    assert {path.removeprefix("/api/v1/") for path in document["paths"]} == plain
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["summary"] and operation["description"]
            assert {"401", "403", "429", "500"} <= set(operation["responses"])
            assert operation["security"] == [{"bearer": []}, {"apiKey": []}, {"session": []}]


def test_requests_in_the_document_are_as_strict_as_the_server(client: Client) -> None:
    document = client.get("/api/v1/schema/").json()
    asked = {name: s for name, s in document["components"]["schemas"].items() if name.endswith("Request")}
    assert asked
    assert [name for name, schema in asked.items() if schema.get("additionalProperties") is not False] == []
