"""What all operations for programs of others share: events, patience, charging, and ending with the caller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest
from django.http import HttpResponseBase, StreamingHttpResponse

from inference.errors import InvalidRequest, Unavailable
from inference.types import (
    CombineVectors,
    Finished,
    GenerationRequest,
    Message,
    Progress,
    Result,
    SamplingParams,
    VectorTerm,
)
from steering.access.admission import running as open_entries
from steering.access.denied import Denied
from steering.access.keys import create_key, revoke_key
from steering.access.models import LedgerEntry
from steering.access.principal import Principal
from steering.accounts.models import User
from steering.api.openai.errors import ApiError
from steering.compat import answering, running
from steering.compat.mechanex import wire
from tests.fake_inference import MODEL, FakeInference
from tests.steering.endings import settled

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "FIRST_SECONDS", 0.2)
    monkeypatch.setattr(answering, "BEAT_SECONDS", 0.05)


async def body_of(response: HttpResponseBase) -> bytes:
    if isinstance(response, StreamingHttpResponse):
        return b"".join([chunk async for chunk in response.streaming_content])  # type: ignore[union-attr]
    return bytes(response.content)  # type: ignore[attr-defined]


def sent(source: Callable[[], AsyncIterator[dict[str, Any]]]) -> bytes:
    async def run() -> bytes:
        return await body_of(await answering.events(source()))

    return asyncio.run(run())


# ---- events ----


def test_events_are_sent_as_they_come() -> None:
    async def source() -> AsyncIterator[dict[str, Any]]:
        yield {"status": "progress", "n": 1}
        await asyncio.sleep(0.12)
        yield {"status": "complete", "result": {"output": "é\n"}}

    text = sent(source).decode()
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert events == [{"status": "progress", "n": 1}, {"status": "complete", "result": {"output": "é\n"}}]
    assert ": still here\n\n" in text


def test_what_fails_before_the_first_event_has_a_status() -> None:
    async def source() -> AsyncIterator[dict[str, Any]]:
        raise InvalidRequest("bad", "Say it otherwise.")
        yield {}

    with pytest.raises(InvalidRequest):
        sent(source)


def test_what_fails_later_is_an_event() -> None:
    async def source() -> AsyncIterator[dict[str, Any]]:
        yield {"status": "progress"}
        raise Unavailable("gone", "The model went away. Try again.")

    assert sent(source).endswith(b'data: {"status":"error","message":"The model went away. Try again."}\n\n')


def test_whoever_leaves_a_stream_ends_its_source() -> None:
    ended = []

    async def source() -> AsyncIterator[dict[str, Any]]:
        try:
            yield {"status": "progress"}
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    async def leave() -> None:
        response = await answering.events(source())
        assert isinstance(response, StreamingHttpResponse)
        async with aclosing(response.streaming_content) as chunks:  # type: ignore[type-var]
            await anext(chunks)  # type: ignore[arg-type]

    asyncio.run(leave())
    assert ended


# ---- patience ----


def patiently(work: Any) -> tuple[HttpResponseBase, bytes]:
    async def run() -> tuple[HttpResponseBase, bytes]:
        response = await answering.patient(work())
        return response, await body_of(response)

    return asyncio.run(run())


def test_quick_work_is_plain_json() -> None:
    async def work() -> list[int]:
        return [1]

    response, body = patiently(work)
    assert not response.streaming and json.loads(body) == [1]


def test_slow_work_is_json_behind_spaces() -> None:
    async def waited_for() -> tuple[bytes, bytes]:
        two_came = asyncio.Event()

        async def work() -> dict[str, int]:
            await two_came.wait()
            return {"n": 1}

        response = await answering.patient(work())
        assert isinstance(response, StreamingHttpResponse)
        chunks = aiter(response.streaming_content)  # type: ignore[arg-type]
        first = await anext(chunks) + await anext(chunks)
        two_came.set()
        return first, b"".join([chunk async for chunk in chunks])

    first, rest = asyncio.run(waited_for())
    assert first == b"  " and json.loads(first + rest) == {"n": 1}


def test_what_fails_early_has_a_status_and_late_is_no_json() -> None:
    async def early() -> None:
        raise InvalidRequest("bad", "Say it otherwise.")

    async def late() -> None:
        await asyncio.sleep(0.4)
        raise Unavailable("gone", "The model went away. Try again.")

    with pytest.raises(InvalidRequest):
        patiently(early)
    body = patiently(late)[1]
    assert body.strip() == b"error 503: The model went away. Try again."
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(body)


# ---- refusals ----


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ApiError(400, "x", "Said."), 422),
        (ApiError(404, "x", "Said."), 404),
        (InvalidRequest("x", "Said."), 422),
        (Unavailable("x", "Said.", retry_after=2.4), 503),
        (Denied(429, "quota_spent", "Said.", headers={"Retry-After": "7"}), 429),
        (Denied(403, "missing_scope", "Said."), 403),
        (ZeroDivisionError("a secret"), 500),
    ],
    ids=lambda value: getattr(value, "code", None) or str(value),
)
def test_every_failure_is_a_sentence_with_a_status(error: Exception, status: int) -> None:
    answer = wire.refusal(error)
    said = json.loads(answer.content)
    assert answer.status_code == status and list(said) == ["detail"]
    assert said["detail"] == "Said." or (status == 500 and "secret" not in said["detail"])
    if isinstance(error, Unavailable):
        assert answer["Retry-After"] == "3"


# ---- work ----


def requests(count: int = 1, max_tokens: int = 4) -> list[GenerationRequest]:
    sampling = SamplingParams(max_tokens=max_tokens)
    return [GenerationRequest("gen-1", messages=(Message("user", "Hi"),), sampling=sampling) for _ in range(count)]


def test_rows_of_a_batch_are_charged_when_they_end(person: User, fake_inference: FakeInference) -> None:
    async def run() -> list[int]:
        who = Principal(person)
        return [row async for row, event in running.generate(who, requests(2)) if isinstance(event, Finished)]

    assert sorted(asyncio.run(run())) == [0, 1]
    entry = LedgerEntry.objects.get()
    assert (entry.state, entry.kind, entry.source, entry.model) == (
        "settled",
        "generate",
        "compat",
        MODEL,
    )
    assert 0 < entry.used_tokens <= entry.reserved_tokens and entry.completion_tokens > 0


def test_whoever_leaves_is_charged_for_what_was_written(person: User, fake_inference: FakeInference) -> None:
    async def leave() -> None:
        async with aclosing(running.generate(Principal(person), requests())) as events:
            async for _, event in events:
                if event.type == "token":
                    return

    asyncio.run(leave())
    entry = settled()
    assert entry.completion_tokens >= 1 and not open_entries().exists()


def test_a_spent_quota_is_refused_before_anything_runs(person: User, fake_inference: FakeInference) -> None:
    key, _ = create_key(owner=person, name="poor", scopes=["generate"], tokens_per_day=3)

    async def run() -> None:
        async for _ in running.generate(Principal(person, key), requests()):
            raise AssertionError("it ran")

    with pytest.raises(Denied, match="tokens"):
        asyncio.run(run())


BUILD = CombineVectors("job-1", terms=(VectorTerm("v", 1.0),))


def test_a_job_gives_progress_and_its_result(person: User, fake_inference: FakeInference) -> None:
    async def run() -> list[Progress | Result]:
        return [event async for event in running.job(Principal(person), BUILD, kind="vector", tokens=10)]

    events = asyncio.run(run())
    assert isinstance(events[-1], Result) and all(isinstance(event, Progress) for event in events[:-1])
    entry = LedgerEntry.objects.get()
    assert (entry.state, entry.prompt_tokens, entry.work) == ("settled", 10, "job-1")


def test_a_job_ends_with_its_key(person: User, fake_inference: FakeInference, monkeypatch: pytest.MonkeyPatch) -> None:
    key, _ = create_key(owner=person, name="doomed", scopes=["jobs"])
    monkeypatch.setattr(running, "CHECK_SECONDS", 0.05)

    async def forever(job: Any) -> AsyncIterator[Any]:
        yield Progress(job.id, 0, 0, 1)
        await asyncio.sleep(3600)

    monkeypatch.setattr(fake_inference, "run", forever)

    async def run() -> None:
        async for _ in running.job(Principal(person, key), BUILD, kind="vector", tokens=10):
            await running.in_thread(revoke_key)(key)

    with pytest.raises(ApiError, match="revoked"):
        asyncio.run(run())
    assert settled().state == "settled"
