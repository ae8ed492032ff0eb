"""The short way to /v1 for requests with a key: the same answers as through all of the middleware."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings

from tests.guards.asgi import ask
from webapp import asgi, programs

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("fake_inference")]

KEY = {"authorization": "Bearer sk-sb-nobodys"}
OWN = {"x-request-id", "openai-processing-ms"}  # of each request
REQUESTS = [
    ("GET", "/v1/models", {}),
    ("GET", "/v1/nowhere", {}),
    ("DELETE", "/v1/models", {}),
    ("GET", "/v1/models", {"host": "elsewhere.example"}),
    ("GET", "/v1/models", {"origin": "https://page.example"}),
    ("OPTIONS", "/v1/models", {"origin": "https://page.example", "access_control_request_method": "GET"}),
    ("POST", "/v1/chat/completions", {"content_length": str(10**9), "content_type": "application/json"}),
]


@pytest.mark.parametrize(("method", "path", "headers"), REQUESTS)
@override_settings(CORS_ORIGINS=["https://page.example"])
def test_a_program_is_answered_as_it_would_be_the_long_way(method, path, headers, monkeypatch):
    short = async_to_sync(ask)(method, path, **KEY, **headers)
    monkeypatch.setattr(asgi, "programs", asgi.pages)
    long = async_to_sync(ask)(method, path, **KEY, **headers)
    assert short.status == long.status
    told = [{k: v for k, v in answer.headers.items() if k not in OWN} for answer in (short, long)]
    for answer in told:  # no cookie was looked at, so none can change the answer
        answer["vary"] = ", ".join(sorted(set(answer.get("vary", "").split(", ")) - {"Cookie", ""}))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("path", "header", "short"),
    [
        ("/v1/models", b"authorization", True),
        ("/v1/models", b"X-API-Key", True),
        ("/v1/models", b"cookie", False),
        ("/api/v1/vectors", b"authorization", False),
        ("/playground/", b"authorization", False),
    ],
)
def test_only_programs_with_a_key_take_the_short_way(path, header, short):
    assert programs.brings_key({"path": path, "headers": [(b"host", b"h"), (header, b"x")]}) is short


def test_a_client_that_goes_away_ends_its_answer():
    class Endless(programs.ProgramHandler):
        ended = False

        async def _answer(self, request, send):
            try:
                await asyncio.sleep(60)
            finally:
                Endless.ended = True

    scope = {"type": "http", "method": "GET", "path": "/v1/models", "query_string": b"", "headers": []}
    said = [{"type": "http.request", "body": b""}, {"type": "http.disconnect"}]

    async def receive():
        return said.pop(0)

    async def visit():
        async with asyncio.timeout(20):
            await Endless()(scope, receive, None)

    asyncio.run(visit())
    assert Endless.ended
