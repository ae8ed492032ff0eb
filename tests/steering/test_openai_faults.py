"""What the model side does wrong, or too late, as a client of /v1 sees it. No model: its part is played."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.test import AsyncClient

from inference import arrivals
from inference.errors import Busy, Unavailable
from inference.types import (
    Event,
    Failed,
    Finished,
    GenerationRequest,
    Intervention,
    Positions,
    Receipt,
    Started,
    Token,
    Usage,
)
from steering import draining, gateway
from steering.access import going_on
from steering.access.keys import create_key
from steering.access.models import ApiKey, LedgerEntry
from steering.accounts.models import User
from steering.api.openai import call, rows
from steering.database import in_database
from steering.vectors.models import Vector
from tests.fake_inference import MODEL, FakeInference
from tests.steering.play import keep_vector
from tests.waiting import auntil

pytestmark = pytest.mark.django_db(transaction=True)


class Played(FakeInference):
    """Plays `script` to whoever asks; a number in it is a pause in seconds."""

    script: tuple[Any, ...] = ()
    left = 0

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        self.requests.append(request)
        try:
            for step in self.script:
                if isinstance(step, int | float):
                    await asyncio.sleep(step)
                else:
                    yield step
        finally:
            self.left += 1


class Program(AsyncClient):
    """Sends its key with everything."""

    def __init__(self, secret: str):
        super().__init__()
        self._headers = {"Authorization": f"Bearer {secret}"}

    def generic(self, *args: Any, **extra: Any) -> Any:
        return super().generic(*args, **{**extra, "headers": self._headers})


@pytest.fixture
def played() -> Iterator[Played]:
    model = Played()
    gateway.set_inference(model)
    yield model
    gateway.set_inference(None)


@pytest.fixture
def client(person: User) -> AsyncClient:
    _, secret = create_key(owner=person, name="test", scopes=["generate"])
    return Program(secret)


STARTED = Started("a", 0, prompt_tokens=3, seed=1)
TOKEN = Token("a", 1, 7, "calm")
LOST = Failed("a", 2, "unavailable", "worker_lost", "The worker is gone. Try again.", 3.0)


def finished(reason: str = "stop") -> Finished:
    return Finished("a", 2, reason, Usage(3, 1), Receipt(MODEL, "fake", 1), 0.1)  # type: ignore[arg-type]


async def ask(client: AsyncClient, **fields: Any) -> Any:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return await client.post("/v1/chat/completions", json.dumps(body), content_type="application/json")


async def events(response: Any) -> list[str]:
    text = b"".join([part async for part in response.streaming_content]).decode()
    return [line.removeprefix("data: ") for line in text.split("\n") if line.startswith(("data: ", ":"))]


@pytest.fixture
def ledger() -> Any:
    async def settled() -> list[tuple[str, int]]:
        async def none_open() -> bool:
            return not await LedgerEntry.objects.open().aexists()

        await auntil(none_open)
        return [(e.state, e.used_tokens) async for e in LedgerEntry.objects.all()]

    return settled


async def test_a_call_is_announced_to_the_engine_until_it_is_admitted(
    client: AsyncClient, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.script = (STARTED, TOKEN, finished())
    announced, admitted = [], call._admitted

    def noted(*args: Any) -> Any:
        announced.append(arrivals.expected())
        return admitted(*args)

    monkeypatch.setattr(call, "_admitted", noted)
    assert (await ask(client)).status_code == 200
    assert (announced, arrivals.expected()) == ([1], 0)


async def test_an_error_in_the_middle_of_a_stream_ends_it_without_done(
    client: AsyncClient, played: Played, ledger: Any
) -> None:
    played.script = (STARTED, TOKEN, LOST)
    response = await ask(client, stream=True)
    assert response.status_code == 200 and response["Content-Type"] == "text/event-stream"
    *_, written, last = await events(response)
    assert json.loads(written)["choices"][0]["delta"]["content"] == "calm"
    assert json.loads(last)["error"] == {
        "message": LOST.message, "type": "server_error", "param": None, "code": "worker_lost"
    }  # fmt: skip
    assert await ledger() == [("settled", 4)]


@pytest.mark.parametrize("stream", [True, False])
async def test_what_fails_before_a_token_has_a_status_and_costs_nothing(
    stream: bool, client: AsyncClient, played: Played, ledger: Any
) -> None:
    for error, status in ((LOST, 503), (Failed("a", 0, "busy", "queue_full", "Full.", 2.0), 503)):
        played.script = (error,)
        response = await ask(client, stream=stream)
        assert response.status_code == status and response["Retry-After"] == str(int(error.retry_after or 0))
        assert json.loads(response.content)["error"]["code"] == error.code
    assert await ledger() == [("refunded", 0)] * 2


async def test_one_row_that_fails_ends_all_of_a_request(client: AsyncClient, played: Played) -> None:
    played.script = (STARTED, 0.05, LOST)
    assert (await ask(client, n=4)).status_code == 503
    await asyncio.sleep(0.05)
    assert played.left == 4


async def test_an_answer_that_was_not_steered_is_withheld(client: AsyncClient, played: Played, person: User) -> None:
    from channels.db import database_sync_to_async

    vector: Vector = await database_sync_to_async(keep_vector)(person)
    played.script = (STARTED, TOKEN, finished())  # and no word of the intervention
    steering = {"vectors": [{"vector": str(vector.pk), "strength": 1.0, "positions": "generated"}]}
    response = await ask(client, steering=steering)
    assert response.status_code == 500 and json.loads(response.content)["error"]["code"] == "not_steered"
    (sent,) = played.requests[-1].interventions
    assert isinstance(sent, Intervention) and sent.positions == Positions(prompt=False) and sent.unit == "relative"


async def test_work_that_an_administrator_stops_says_so(client: AsyncClient, played: Played) -> None:
    played.script = (STARTED, TOKEN, finished("cancelled"))
    response = await ask(client)
    assert response.status_code == 503 and response["x-should-retry"] == "false"
    last = json.loads((await events(await ask(client, stream=True)))[-1])
    assert last["error"]["code"] == "stopped"


async def test_the_reservation_names_what_stops_it(client: AsyncClient, played: Played) -> None:
    played.script = (STARTED, TOKEN, finished())
    answer = json.loads((await ask(client, n=2)).content)
    assert {request.id for request in played.requests} == {answer["id"]}
    assert [e.work async for e in LedgerEntry.objects.all()] == [answer["id"]]


async def test_who_leaves_while_a_call_is_admitted_holds_no_place(
    client: AsyncClient, played: Played, ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    admitted, gone, reserve = threading.Event(), threading.Event(), call.reserve

    def slowly(*args: Any, **fields: Any) -> Any:
        reservation = reserve(*args, **fields)
        admitted.set()
        gone.wait(10)
        return reservation

    monkeypatch.setattr(call, "reserve", slowly)
    asking = asyncio.create_task(ask(client))
    await asyncio.to_thread(admitted.wait, 10)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    gone.set()
    await in_database(int)  # behind the admission, whose reservation is in the ledger from then on
    assert await ledger() == [("refunded", 0)] and not played.requests


async def test_a_call_that_is_refused_is_noted_as_a_use_of_its_key(client: AsyncClient, played: Played) -> None:
    await ApiKey.objects.aupdate(requests_per_minute=0, last_used_at=None)
    response = await ask(client)
    assert response.status_code == 429 and not await LedgerEntry.objects.aexists()
    assert (await ApiKey.objects.aget()).last_used_at is not None


async def test_a_stream_that_waits_says_that_it_lives(
    client: AsyncClient, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "HEADERS_SECONDS", 0.05)
    monkeypatch.setattr(call, "IDLE_SECONDS", 0.05)
    played.script = (0.4, STARTED, TOKEN, 0.4, finished())
    lines = await events(await ask(client, stream=True))
    assert lines.count(": still here") >= 2 and lines[-1] == "[DONE]"


async def test_a_stream_that_nobody_reads_is_ended(
    client: AsyncClient, played: Played, ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(going_on, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(rows, "UNREAD_SECONDS", 0.1)
    played.script = (STARTED, *[TOKEN, 0.01] * 10_000, finished())
    await ask(client, stream=True)
    assert await ledger() == [("refunded", 0)]
    assert played.left == 1


async def test_while_the_server_drains_nothing_new_is_taken_and_what_runs_is_held(
    client: AsyncClient, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.script = (STARTED, TOKEN, 0.2, finished())
    running = asyncio.create_task(ask(client))
    while not (played.requests or running.done()):
        await asyncio.sleep(0.01)
    assert draining.held() == 1
    monkeypatch.setattr(draining, "active", lambda: True)
    refused = await ask(client)
    assert refused.status_code == 503 and refused["Retry-After"]
    assert (await running).status_code == 200
    assert draining.held() == 0


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_server_that_drains_waits_until_a_call_is_settled(
    leaves: bool, client: AsyncClient, played: Played, ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.script = (STARTED, TOKEN, finished())
    settling, go_on, settle = threading.Event(), threading.Event(), call.settle

    def slowly(*args: Any, **used: int) -> None:
        settling.set()
        go_on.wait(60)
        settle(*args, **used)

    monkeypatch.setattr(call, "settle", slowly)
    asked = asyncio.create_task(ask(client))
    await asyncio.to_thread(settling.wait, 60)
    if leaves:
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    assert draining.held() == 1
    go_on.set()
    assert await ledger() == [("settled", 4)]
    await auntil(nothing_held)


async def nothing_held() -> bool:
    return not draining.held()


@pytest.mark.parametrize("error", [Busy("x", "Later.", retry_after=1), Unavailable("no_worker", "No worker is there.")])
async def test_a_model_side_that_is_away_is_a_503(error: Any, client: AsyncClient, played: Played) -> None:
    async def models() -> Any:
        raise error

    played.models = models  # type: ignore[method-assign]
    for path in ("/v1/models", "/v1/models/x"):
        response = await client.get(path)
        assert response.status_code == 503 and json.loads(response.content)["error"]["type"] == "server_error"
    assert (await ask(client)).status_code == 503


async def test_a_session_needs_the_pages_token(person: User, played: Played) -> None:
    browser = AsyncClient(enforce_csrf_checks=True)
    await browser.aforce_login(person)
    assert (await browser.get("/v1/models")).status_code == 200
    assert (await ask(browser)).status_code == 403
    assert played.requests == []
