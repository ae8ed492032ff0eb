"""A log says who asked for what and how it went; it holds no secret and nothing that anybody wrote."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import connect

from inference.logs import Cause, JsonLines, TextLines, cause, log_settings, redacted
from inference.transports.attempts import Attempt
from inference.types import GenerationRequest
from steering import gateway
from tests.guards.running import Server

SECRETS = [
    ("Authorization: Bearer sk-sb-ab12cd34-Zm9vYmFyYmF6", "Zm9vYmFyYmF6"),
    ("key sk-sb-ab12cd34-Zm9v_YmFy-YmF6 was used", "Zm9v_YmFy-YmF6"),
    ("authorization=basic bWlyYTpzZWNyZXQ=", "bWlyYTpzZWNyZXQ"),
    ("Gone: /accounts/link/4kQ9v_N-0yqyKJ2sHQ0mQbVdJ8C1yYtq2kM0a9gq8wE/", "4kQ9v_N"),
    ("Not Found: /accounts/password/reset/key/3-cxk2f1-0a1b2c3d4e5f60718293a4b5c6d7e8f9/", "0a1b2c3d"),
    ("GET /accounts/confirm-email/MQ:1tXyZa:8hX1s0mQbVdJ8C1yYtq2kM0a9gq8wE/", "8hX1s0mQ"),
    ("redis://:hunter2hunter2@redis:6379/0 does not answer", "hunter2"),
    ("postgres://board:hunter2@db/board", "hunter2"),
    ("Cookie: sessionid=0a1b2c3d4e5f; csrftoken=zzzyyyxxx", "0a1b2c3d"),
    ('null value in column "title"\nDETAIL: Failing row contains (7, my diary, …).', "diary"),
]


@pytest.mark.parametrize(("line", "secret"), SECRETS, ids=[secret for _, secret in SECRETS])
def test_a_secret_that_slips_into_a_line_is_taken_out(line: str, secret: str) -> None:
    assert secret in line
    assert secret not in redacted(line)
    for formatter in (TextLines(), JsonLines()):
        record = logging.LogRecord("x", logging.INFO, "f", 1, "%s", (line,), None)
        record.request_id = "-"
        assert secret not in formatter.format(record)


def test_what_names_a_thing_stays_readable() -> None:
    for line in (
        "run 6f0f5d5e-0d5c-4b7e-9d3e-1f1f1f1f1f1f was ended elsewhere",
        "load meta-llama/Llama-Guard-3-11B-Vision-Preview",
        "/accounts/profile/ and http://127.0.0.1:8000/jobs/6f0f5d5e-0d5c-4b7e-9d3e-1f1f1f1f1f1f/",
    ):
        assert redacted(line) == line


def test_a_json_line_holds_the_request_the_facts_and_the_exception() -> None:
    token = cause.set("req_7")
    try:
        raise ValueError("postgres://board:hunter2@db/board")
    except ValueError:
        record = logging.LogRecord("a.b", logging.ERROR, "f", 1, "it broke\nbadly", (), sys.exc_info())
    record.facts = {"route": "jobs:list", "message": "not this one"}  # type: ignore[attr-defined]
    Cause().filter(record)
    text = JsonLines().format(record)
    cause.reset(token)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["request_id"], line["level"], line["message"], line["route"]) == (
        "req_7", "error", "it broke\nbadly", "jobs:list",
    )  # fmt: skip
    assert "ValueError" in line["exception"]
    assert "hunter2" not in text


def test_a_format_that_there_is_not_is_refused_with_a_cure() -> None:
    with pytest.raises(ValueError, match="text, json"):
        log_settings("xml")


# ---- a real run, with secrets planted wherever one could enter ----

PROMPT = "plantedprompt-0451"
SYSTEM = "plantedsystem-0451"
ANSWER = "quick brown"  # of the fake model
KEY = "sk-sb-planted0-plantedkeyplantedkey"
QUERY = "plantedquery"


def run(server: Server) -> None:
    """A run on the playground, to its end."""
    settings = {"input": PROMPT, "lanes": [{"key": "A", "name": "Base", "system_prompt": SYSTEM}]}
    headers, url = {"Cookie": f"sessionid={server.cookie}"}, f"ws://127.0.0.1:{server.port}/ws/playground/"
    with connect(url, additional_headers=headers, origin=server.url) as socket:  # type: ignore[arg-type]
        socket.send(json.dumps({"t": "run", "idem": str(uuid.uuid4()), "settings": settings}))
        heard = ""
        while "run_finished" not in heard:
            heard += str(socket.recv(timeout=20))
        assert ANSWER in "".join(e["s"] for e in _tokens(heard))


def _tokens(heard: str) -> Iterator[dict[str, Any]]:
    decoder, at = json.JSONDecoder(), 0
    while at < len(heard):
        message, at = decoder.raw_decode(heard, at)
        yield from (event for event in message.get("events", []) if event["t"] == "token")


@pytest.fixture(scope="module", params=["json", "text"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a server wrote to its log in a short life, and the secrets that were shown to it."""
    server = Server(tmp_path_factory.mktemp("logs"), request.param)
    try:
        seen = {
            "link": server.get(f"/accounts/link/{server.token}/"),
            "spent": server.get(f"/accounts/link/{server.token}/"),
            "profile": server.get("/accounts/profile/"),
            "search": server.get(f"/playground/runs/?q={QUERY}&token={QUERY}"),
            "nowhere": server.get(f"/nowhere/{QUERY}/"),
            "key": server.get("/status.json", Authorization=f"Bearer {KEY}", Accept="application/json"),
            "static": server.get("/static/favicon.svg"),
            "broken": server.get(f"/broken/{server.token}/?prompt={PROMPT}"),
        }
        run(server)
        text = server.stop()
    finally:
        server.process.kill()
    return {"form": request.param, "seen": seen, "text": text, "token": server.token, "cookie": server.cookie}


def test_the_log_of_a_real_run_holds_none_of_the_planted_secrets(told: dict[str, Any]) -> None:
    assert told["text"].count("\n") > 8
    planted = [PROMPT, SYSTEM, ANSWER, QUERY, KEY.rpartition("-")[2], told["token"], told["token"][:16], told["cookie"]]
    assert [secret for secret in planted if secret in told["text"]] == []
    assert not re.search(r"sessionid=\w|csrftoken=\w|Bearer \w", told["text"])


def test_each_request_and_websocket_has_one_line_that_says_who_what_and_how(told: dict[str, Any]) -> None:
    if told["form"] == "text":
        for name in ("link", "spent", "profile", "search", "nowhere", "broken"):
            assert told["text"].count(f"INFO {told['seen'][name][1]} steerboard.access") == 1
        assert "GET static" not in told["text"]  # pages ask for these all the time
        return
    lines = [json.loads(line) for line in told["text"].splitlines()]
    access = [line for line in lines if line["logger"] == "steerboard.access"]
    by_id = {line["request_id"]: line for line in access}
    assert len(by_id) == len(access)
    routes = {name: (by_id[id]["route"], by_id[id]["status"]) for name, (_, id) in told["seen"].items()}
    assert routes == {
        "link": ("playground:welcome", 200),  # where the link led
        "spent": ("accounts:link", 410),
        "profile": ("accounts:profile", 200),
        "search": ("playground:runs", 200),
        "nowhere": ("unknown", 404),
        "key": ("status", 200),
        "static": ("static", 200),
        "broken": ("broken", 500),
    }
    assert by_id[told["seen"]["profile"][1]]["user"] >= 1
    (socket,) = [line for line in access if line["kind"] == "websocket"]
    assert (socket["route"], socket["status"]) == ("/ws/playground/", 101)
    assert socket["user"] >= 1
    assert socket["ms"] > 0
    broken = [line for line in lines if line["request_id"] == told["seen"]["broken"][1] and "exception" in line]
    assert "ZeroDivisionError" in broken[0]["exception"]


async def _said() -> str:
    return cause.get()


async def test_the_request_id_goes_along_to_what_a_request_begins() -> None:
    token = cause.set("req_9")
    try:
        assert gateway.call(_said()) == "req_9"
        attempt = Attempt(GenerationRequest("1", prompt="x"), asyncio.get_running_loop(), asyncio.Queue())
    finally:
        cause.reset(token)
    assert attempt.cause == "req_9"
