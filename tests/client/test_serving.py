"""What `serve` lets in, and that it ends what nobody waits for: its ASGI application, asked as a server asks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from steerboard import Steerboard
from steerboard.serving.app import App
from steerboard.serving.here import Here

from tests.inference import stack, tiny
from tests.waiting import PATIENCE, auntil

OWN = {"host": "127.0.0.1:8001", "content-type": "application/json"}
ENDLESS: dict[str, Any] = {"model": "", "prompt": "The", "max_tokens": 20_000, "ignore_eos": True}


class Caller:
    """One connection: sends a request, keeps the answer, and may leave."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.sent: list[Any] = []
        self._body: list[bytes] = []

    async def ask(self, app: App, body: Any, headers: dict[str, str] = OWN, path: str = "/v1/completions") -> None:
        self._body = [json.dumps(body).encode()]
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        method = "GET" if body is None else "POST"
        await app({"type": "http", "method": method, "path": path, "headers": raw}, self._receive, self._send)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def said(self) -> Any:
        return json.loads(b"".join(message.get("body", b"") for message in self.sent))

    async def _receive(self) -> dict[str, Any]:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("serving")
    model = stack.stretch(tiny.save("llama", folder / "llama"), folder / "Tiny")
    with Steerboard("http://127.0.0.1:1", "no-key") as client:
        client.load(str(model), data_dir=folder / "data")
        yield client
        client.unload()


@pytest.fixture
def app(here: Steerboard) -> App:
    return App(Here(here._core.local))


async def rows(here: Steerboard) -> int:
    return int((await here._core.local.studio.client.describe()).rows)


# ---- who is let in ----


@pytest.mark.parametrize("host", ["127.0.0.1:8001", "localhost:8001", "LOCALHOST", "[::1]:8001"])
async def test_without_a_key_this_machine_is_answered(host: str, app: App) -> None:
    caller = Caller()
    await caller.ask(app, {"prompt": "The", "max_tokens": 2}, OWN | {"host": host})
    assert caller.status == 200 and caller.said["choices"][0]["finish_reason"]


@pytest.mark.parametrize("host", ["evil.example.org:8001", "127.0.0.1.example.org", "", "[::1", "192.168.1.4:8001"])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/models"])
async def test_without_a_key_no_other_name_is_answered(host: str, path: str, app: App) -> None:
    caller = Caller()
    body = None if path == "/v1/models" else {"prompt": "The", "max_tokens": 2}
    await caller.ask(app, body, OWN | {"host": host}, path)
    assert caller.status == 403 and "api_key" in caller.said["error"]["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_without_a_key_a_page_cannot_send_what_needs_no_leave(kind: str, app: App) -> None:
    caller = Caller()
    await caller.ask(app, {"prompt": "The", "max_tokens": 2}, OWN | {"content-type": kind})
    assert caller.status == 415 and "application/json" in caller.said["error"]["message"]


async def test_with_a_key_the_key_lets_in(here: Steerboard) -> None:
    app, body = App(Here(here._core.local), "own"), {"prompt": "The", "max_tokens": 2}
    for key, status in (("own", 200), ("other", 401)):
        caller = Caller()
        await caller.ask(app, body, {"host": "box.example.org", "authorization": f"Bearer {key}"})
        assert caller.status == status


async def test_a_caller_cannot_run_code_by_a_policy(app: App) -> None:
    policy = {"verifiers": {"enabled": ["unit_tests"], "code_unit_tests": ["assert True"]}}
    caller = Caller()
    await caller.ask(app, {"prompt": "The", "max_tokens": 2, "policy": policy})
    assert caller.status == 400 and "unit_tests" in caller.said["error"]["message"]


# ---- what it refuses ----


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"prompt": ["The"] * 129}, "128"),
        ({"prompt": ["The"] * 9, "n": 16}, "128"),
        ({"prompt": "The", "steering_vector": {"1": [1.0] * 32}}, "steering_strength"),
        ({"prompt": "The", "policy": {}, "temperature": 0.1}, "'temperature' cannot stand beside a policy"),
        ({"prompt": "The", "policy": {"sampling": {"method": "greedy"}}, "stop": ["e"]}, "'stop' cannot stand beside"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
async def test_what_cannot_be_done_is_refused_by_name(body: dict[str, Any], word: str, app: App) -> None:
    caller = Caller()
    await caller.ask(app, {"max_tokens": 2, **body})
    assert caller.status == 400 and word in caller.said["error"]["message"]


async def test_a_policy_decides(app: App) -> None:
    caller = Caller()
    policy = {"sampling": {"method": "guided-generation"}, "constraints": {"regex_pattern": "yes|no"}}
    await caller.ask(app, {"prompt": "The", "max_tokens": 8, "seed": 1, "policy": policy})
    assert caller.status == 200 and caller.said["choices"][0]["text"] in ("yes", "no")


# ---- whoever leaves ----


@pytest.mark.parametrize(
    "more",
    [{"n": 3}, {"stream": True, "n": 2}, {"policy": {"optimization": {"best_of_n": 3}}}],
    ids=["whole", "streamed", "policy"],
)
async def test_who_leaves_ends_the_writing(more: dict[str, Any], app: App, here: Steerboard) -> None:
    caller = Caller()
    body = ENDLESS | more
    if "policy" in more:
        del body["ignore_eos"]
    asking = asyncio.create_task(caller.ask(app, body))
    await auntil(lambda: _some(here))
    assert not asking.done(), caller.sent
    caller.left.set()
    await asyncio.wait_for(asking, PATIENCE)
    await auntil(lambda: _none(here))
    with suppress(IndexError):
        assert caller.status == 200 and more.get("stream")


async def _some(here: Steerboard) -> bool:
    return await rows(here) > 0


async def _none(here: Steerboard) -> bool:
    return await rows(here) == 0


async def test_one_row_that_fails_ends_the_others(here: Steerboard, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would go on for as long as they were told to, for nobody."""
    from inference.errors import InvalidRequest

    backend = Here(here._core.local)
    follow, finished = backend._events, []

    async def failing(row: Any) -> AsyncIterator[Any]:
        nonlocal finished
        if row.index == 1:
            await auntil(lambda: _some(here))
            raise InvalidRequest("bad", "This one fails.")
        async for event in follow(row):
            finished += [row] if event.type == "finished" else []
            yield event

    monkeypatch.setattr(backend, "_events", failing)
    caller = Caller()
    await asyncio.wait_for(caller.ask(App(backend), ENDLESS | {"n": 2}), PATIENCE)
    assert caller.status == 400 and "This one fails" in caller.said["error"]["message"]
    await auntil(lambda: _none(here))
    assert not finished
