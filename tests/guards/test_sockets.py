"""The websocket's door, through the whole application: whose page may open it, and who may say what on it."""

from __future__ import annotations

import json
import logging
import uuid
from typing import Any

import pytest
from channels.db import database_sync_to_async as in_db
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.sessions.models import Session
from django.test import Client

from steering.access.keys import create_key
from steering.accounts.models import User
from steering.playground.messages import SUBPROTOCOL
from steering.playground.models import Run
from tests.guards.world import World
from tests.steering.play import a_run, steered
from webapp.asgi import application
from webapp.origins import is_own

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("fake_inference")]

HOST = b"localhost:8000"
OURS = b"http://localhost:8000"

OTHERS = [
    None,
    b"",
    b"null",
    b"https://evil.example",
    b"http://evil.example:8000",
    b"http://localhost",  # another server of the same machine
    b"http://localhost:9999",
    b"http://localhost:8000.evil.example",
    b"http://localhost.evil.example:8000",
    b"file://",
    b"http://[::1",
    b"http://user@localhost:8000",
    b"chrome-extension://localhost:8000",
]


def line(*, origin: bytes | None = OURS, host: bytes = HOST, **headers: str) -> WebsocketCommunicator:
    sent = [(b"host", host), *((k.replace("_", "-").encode(), v.encode()) for k, v in headers.items())]
    if origin is not None:
        sent.append((b"origin", origin))
    return WebsocketCommunicator(application, "/ws/playground/", headers=sent, subprotocols=[SUBPROTOCOL])


def cookie_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"


@pytest.mark.parametrize("origin", OTHERS)
async def test_a_page_of_another_site_opens_no_line_even_with_the_cookie(person: User, origin: bytes | None) -> None:
    cookie = await in_db(cookie_of)(person)
    asked = line(origin=origin, cookie=cookie)
    opened, _ = await asked.connect(timeout=10)
    assert not opened
    await asked.disconnect()


async def test_our_own_page_does(person: User, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, "steerboard.access"):
        asked = line(cookie=await in_db(cookie_of)(person))
        opened, chosen = await asked.connect(timeout=10)
        await asked.disconnect()
        await asked.wait(5)
    assert (opened, chosen) == (True, SUBPROTOCOL)
    (record,) = [record for record in caplog.records if record.name == "steerboard.access"]
    assert (record.facts["status"], record.facts["user"]) == (101, person.pk)


def test_a_page_behind_a_proxy_is_ours_where_the_settings_say_so(settings: Any) -> None:
    headers = {b"host": b"localhost:8000", b"origin": b"https://steer.example.org"}
    assert not is_own(headers)
    settings.CSRF_TRUSTED_ORIGINS = ["https://steer.example.org"]
    assert is_own(headers)


def test_a_foreign_name_for_this_machine_is_not_ours(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["localhost"]
    assert not is_own({b"host": b"rebound.example:8000", b"origin": b"http://rebound.example:8000"})


async def test_a_line_needs_a_session_and_a_key_is_none(person: User) -> None:
    _, secret = await in_db(create_key)(owner=person, name="x", scopes=["generate"])
    for headers in ({}, {"authorization": f"Bearer {secret}"}, {"cookie": "sessionid=" + "x" * 32}):
        asked = line(**headers)
        opened, code = await asked.connect(timeout=10)
        assert (opened, code) == (False, 4401)


async def test_a_stranger_reaches_nothing_of_the_owners(fake_inference: Any) -> None:
    world = await in_db(World)(fake_inference)
    run, vector = str(world.owned["run"].pk), world.owned["vector"]
    plain = a_run().to_wire()
    asked = line(cookie=await in_db(cookie_of)(world.stranger))
    assert (await asked.connect(timeout=10))[0]
    for message, code in (
        ({"t": "subscribe", "run": run}, "run_not_found"),
        ({"t": "stop", "run": run}, "run_not_found"),
        ({"t": "run", "idem": str(uuid.uuid4()), "settings": plain, "parent": run}, "run_not_found"),
        ({"t": "run", "idem": str(uuid.uuid4()), "settings": plain, "version_of": run}, "run_not_found"),
        ({"t": "preview", "nonce": 1, "lane": "A", "settings": plain, "parent": run}, "run_not_found"),
    ):
        await asked.send_json_to(message)
        assert (await heard(asked, "error"))["code"] == code, message
    settings = a_run(steered(vector)).to_wire()
    await asked.send_json_to({"t": "run", "idem": str(uuid.uuid4()), "settings": settings})
    events: list[Any] = []
    while not (events and events[-1]["t"] == "run_finished"):
        events += (await heard(asked, "events"))["events"]
    failed = [event["error"]["code"] for event in events if event["t"] == "failed"]
    assert failed == ["vector_not_found"]
    assert fake_inference.requests == []
    await asked.disconnect()


@pytest.mark.parametrize("kind", ["run", "preview"])
async def test_a_line_that_outlives_its_session_gets_nothing_written(
    person: User, fake_inference: Any, kind: str
) -> None:
    asked = line(cookie=await in_db(cookie_of)(person))
    assert (await asked.connect(timeout=10))[0]
    assert (await asked.receive_json_from(timeout=10))["t"] == "hello"
    await in_db(Session.objects.all().delete)()
    settings = a_run().to_wire()
    asks = {"run": {"idem": str(uuid.uuid4())}, "preview": {"nonce": 1, "lane": "A"}}
    await asked.send_json_to({"t": kind, "settings": settings, **asks[kind]})
    assert await asked.receive_output(timeout=10) == {"type": "websocket.close", "code": 4401}
    assert fake_inference.requests == [] and not await in_db(Run.objects.exists)()


async def heard(asked: WebsocketCommunicator, wanted: str) -> dict[str, Any]:
    while True:
        message: dict[str, Any] = json.loads(await asked.receive_from(timeout=20))
        if message["t"] == wanted:
            return message
