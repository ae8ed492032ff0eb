"""Runs and jobs over REST, and their streams, which are read as a server reads them: asynchronously."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application

from inference.types import CreateVector, Pair
from steering import gateway
from steering.access.keys import revoke_key
from steering.access.models import ApiKey
from steering.accounts.models import User
from steering.api.rest import streams
from steering.jobs.models import Job
from steering.jobs.runner import job_start
from steering.playground import runner
from steering.playground.models import Run
from tests.fake_inference import WORDS, FakeInference
from tests.steering.play import keep_vector
from tests.steering.rest import Program, heard

pytestmark = pytest.mark.django_db(transaction=True)
Json = dict[str, Any]
TWO = [{"name": "Base"}, {"name": "Other"}]


def a_run(program: Program, again: str = "", **more: Any) -> tuple[int, Any]:
    return program.post("runs/", {"input": "Hello there", "lanes": TWO, **more}, again=again)


def events_of(chunks: bytes) -> list[Json]:
    """Each event with its id and name."""
    found = []
    for block in chunks.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append({"id": lines.get("id"), "event": lines["event"], "data": json.loads(lines["data"])})
    return found


def follow(program: Program, id: str, **query: Any) -> list[Json]:
    assert program.get(f"runs/{id}/events/", **query)[0] == 200
    assert program.last.headers["Content-Type"] == "text/event-stream"
    return events_of(heard(program.last))


def in_thread(call: Any) -> Any:
    """As a request under ASGI: in a thread of its own, which the gateway's loop can do without."""
    return sync_to_async(call, thread_sensitive=False)


class Listener:
    """A client at the ASGI application itself."""

    def __init__(self, path: str, secret: str, **headers: str):
        pairs = {"authorization": f"Bearer {secret}", "host": "testserver"} | headers
        scope = {
            "type": "http", "method": "GET", "path": path, "query_string": b"", "http_version": "1.1",
            "headers": [(name.encode(), value.encode()) for name, value in pairs.items()],
        }  # fmt: skip
        self._line = ApplicationCommunicator(get_asgi_application(), scope)
        self.heard = b""

    async def begin(self) -> int:
        await self._line.send_input({"type": "http.request", "body": b""})
        start = await self._line.receive_output(10)
        return int(start["status"])

    async def hear(self, wanted: str = "", timeout: float = 10) -> bool:
        """Until an event of a type came, or the end; whether it came."""
        while not wanted or f"event: {wanted}\n".encode() not in self.heard:
            part = await self._line.receive_output(timeout)
            self.heard += part.get("body", b"")
            if not part.get("more_body"):
                return False
        return True

    async def leave(self) -> None:
        await self._line.send_input({"type": "http.disconnect"})
        await self._line.wait(10)


@asynccontextmanager
async def listening(path: str, secret: str, **headers: str) -> AsyncIterator[Listener]:
    listener = Listener(path, secret, **headers)
    assert await listener.begin() == 200
    try:
        yield listener
    finally:
        await listener.leave()


# ---- runs ----


def test_a_run_answers_in_every_lane_with_a_receipt(person: User, fake_inference: FakeInference) -> None:
    program, vector = Program(person), keep_vector(person)
    lanes = [{"name": "Base"}, {"name": "Calm", "interventions": [{"vector": str(vector.pk), "strength": 0.3}]}]
    status, run = a_run(program, lanes=lanes, sampling={"seed": 3, "max_tokens": 5})
    assert (status, run["settings"]["sampling"]["seed"], run["input"]) == (201, 3, "Hello there")
    follow(program, run["id"])
    base, calm = program.get(f"runs/{run['id']}/")[1]["answers"]
    assert (base["key"], base["name"], base["state"], base["finish_reason"]) == ("A", "Base", "finished", "length")
    assert base["text"].split() == WORDS[:5]
    assert calm["text"] == base["text"].upper()
    assert base["receipt"]["applied"] == []
    assert calm["receipt"]["applied"][0]["vector_id"] == vector.content_id
    assert calm["usage"] == {"prompt_tokens": 12, "completion_tokens": 5}


def test_a_run_sent_again_is_the_same_run(person: User, fake_inference: FakeInference) -> None:
    program = Program(person)
    first, again = a_run(program, "a"), a_run(program, "a")
    assert first[1]["id"] == again[1]["id"]
    assert Run.objects.count() == 1
    assert a_run(program, "a", input="Other")[0] == 422
    assert a_run(program, "b")[1]["id"] != first[1]["id"]
    follow(program, first[1]["id"])


def test_a_run_whose_answer_was_not_kept_is_found_all_the_same(person: User, fake_inference: FakeInference) -> None:
    from steering.api.models import KeptAnswer

    program = Program(person)
    first = a_run(program, "a")
    KeptAnswer.objects.all().delete()  # as if the process had ended in between
    assert a_run(program, "a")[1]["id"] == first[1]["id"]
    follow(program, first[1]["id"])


NOBODYS = "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"lanes": []}, 400),
        ({"lanes": [{"key": "A"}, {"key": "A"}]}, 400),
        ({"lanes": TWO * 4}, 400),
        ({"lanes": [{"interventions": [{"vector": NOBODYS}]}]}, 404),
        ({"lanes": [{"interventions": [{"vector": NOBODYS, "strength": 1e9}]}]}, 400),
        ({"lanes": [{"interventions": [{"vector": 1}]}]}, 400),
        ({"only": ["F"]}, 400),
        ({"input": "  "}, 400),
        ({"input": "a\0"}, 400),
        ({"model": "gpt-9"}, 404),
        ({"parent": NOBODYS}, 404),
        ({"version_of": NOBODYS}, 404),
        ({"sampling": {"temperature": 9}}, 400),
        ({"sampling": {"top_p": 0}}, 400),
        ({"sampling": {"max_tokens": "5"}}, 400),
        ({"sampling": {"heat": 1}}, 400),
    ],
)
def test_a_run_that_cannot_be_honoured_starts_nothing(
    person: User, fake_inference: FakeInference, wrong: Json, status: int
) -> None:
    answer = a_run(Program(person), **wrong)
    assert answer[0] == status, answer
    assert not Run.objects.exists() and not fake_inference.requests


def test_nested_references_to_strangers_things_are_404(
    person: User, stranger: User, fake_inference: FakeInference
) -> None:
    theirs, other = a_run(Program(person))[1]["id"], Program(stranger)
    use = [{"interventions": [{"vector": str(keep_vector(person).pk)}]}]
    answers = [a_run(other, parent=theirs), a_run(other, version_of=theirs), a_run(other, lanes=use)]
    path = f"runs/{theirs}/"
    answers += [other.get(path), other.patch(path, {"title": "x"}), other.delete(path), other.post(f"{path}stop/")]
    answers += [other.get(f"{path}events/")]
    assert {status for status, _ in answers} == {404}
    assert not Run.objects.filter(owner=stranger).exists()
    follow(Program(person), theirs)


def test_a_follow_up_continues_the_talk(person: User, fake_inference: FakeInference) -> None:
    program = Program(person)
    first = a_run(program)[1]
    follow(program, first["id"])
    second = a_run(program, input="And then?", parent=first["id"])[1]
    follow(program, second["id"])
    assert second["parent"] == first["id"]
    assert [message.role for message in fake_inference.requests[-1].messages or ()] == ["user", "assistant", "user"]


def test_one_lane_runs_again_and_the_other_stays(person: User, fake_inference: FakeInference) -> None:
    program = Program(person)
    first = a_run(program)[1]
    follow(program, first["id"])
    again = a_run(program, version_of=first["id"], only=["B"], sampling={"max_tokens": 3})[1]
    follow(program, again["id"])
    run = program.get(f"runs/{again['id']}/")[1]
    assert run["versions"] == [first["id"], again["id"]]
    assert [len(answer["text"].split()) for answer in run["answers"]] == [len(WORDS), 3]


def test_a_run_is_renamed_searched_and_deleted(person: User, fake_inference: FakeInference) -> None:
    program = Program(person)
    id = a_run(program)[1]["id"]
    follow(program, id)
    assert program.patch(f"runs/{id}/", {"title": "A  late train"})[1]["title"] == "A late train"
    assert [row["id"] for row in program.get("runs/", q="train hello", state="finished")[1]["data"]] == [id]
    assert program.get("runs/", q="plane")[1]["data"] == []
    assert program.delete(f"runs/{id}/")[0] == 204
    assert program.get(f"runs/{id}/")[0] == 404


def test_stop_keeps_what_is_written(person: User, fake_inference: FakeInference) -> None:
    fake_inference.delay = 0.2
    program = Program(person)
    id = a_run(program)[1]["id"]
    assert program.post(f"runs/{id}/stop/", {"lane": "Z"})[0] == 400
    assert program.post(f"runs/{id}/stop/")[0] == 200
    assert [e["event"] for e in follow(program, id)][-1] == "run_finished"
    assert {answer["state"] for answer in program.get(f"runs/{id}/")[1]["answers"]} == {"cancelled"}


def test_the_limit_of_a_key_is_a_429_that_says_when_to_come_back(person: User, fake_inference: FakeInference) -> None:
    program = Program(person, requests_per_minute=1)
    statuses = [a_run(program)[0] for _ in range(2)]  # the minute may end in between
    statuses += [a_run(program)[0]]
    assert 429 in statuses
    if statuses[-1] == 429:
        assert int(program.last.headers["Retry-After"]) >= 1
        assert program.last.headers["x-ratelimit-remaining-requests"] == "0"


def test_the_settings_of_a_run_start_the_same_again(person: User, fake_inference: FakeInference) -> None:
    program, vector = Program(person), keep_vector(person)
    lanes = [{"name": "Calm", "system_prompt": "Be calm.", "interventions": [{"vector": str(vector.pk), "on": False}]}]
    first = a_run(program, lanes=lanes, mode="completion", sampling={"seed": None, "stop": ["."]})[1]
    status, again = program.post("runs/", first["settings"])
    assert (status, again["settings"]) == (201, first["settings"])
    for run in (first, again):
        follow(program, run["id"])


async def send(method: str, path: str, secret: str, body: Json | None = None) -> int:
    """A request through everything that a server runs it through, the middleware's threads included."""
    headers = {"authorization": f"Bearer {secret}", "host": "testserver", "content-type": "application/json"}
    text = json.dumps(body or {}).encode()
    headers["content-length"] = str(len(text))
    scope = {
        "type": "http", "method": method, "path": path, "query_string": b"", "http_version": "1.1",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    line = ApplicationCommunicator(get_asgi_application(), scope)
    await line.send_input({"type": "http.request", "body": text})
    start = await line.receive_output(20)
    await line.receive_output(20)
    return int(start["status"])


async def test_a_run_outlives_the_request_that_started_it(person: User, fake_inference: FakeInference) -> None:
    program = await in_thread(Program)(person)
    assert await send("POST", "/api/v1/runs/", program.secret, {"input": "Hello", "lanes": TWO}) == 201
    run = await Run.objects.aget()
    async with listening(f"/api/v1/runs/{run.pk}/events/", program.secret) as listener:
        assert await listener.hear("run_finished")
        assert b'"saved":true' in listener.heard
    assert await send("POST", f"/api/v1/runs/{run.pk}/stop/", program.secret) == 200
    assert await send("DELETE", f"/api/v1/runs/{run.pk}/", program.secret) == 204


# ---- streams of runs ----


def test_a_stream_tells_every_event_once_and_goes_on_where_it_was(person: User, fake_inference: FakeInference) -> None:
    program = Program(person)
    id = a_run(program, sampling={"max_tokens": 4})[1]["id"]
    events = follow(program, id)
    assert [int(e["id"]) for e in events] == list(range(len(events)))
    assert events[-1]["data"]["state"] == "finished"
    text = "".join(e["data"].get("text", "") for e in events if e["data"].get("lane") == "A")
    assert text.split() == WORDS[:4]
    token = next(e["data"] for e in events if e["event"] == "token")
    assert set(token) == {"type", "seq", "lane", "token_id", "text", "logprob", "top_logprobs"}
    assert follow(program, id, after=3) == events[4:]
    headers = program._headers() | {"Last-Event-ID": "5"}
    again = program.client.get(f"/api/v1/runs/{id}/events/", headers=headers)
    assert events_of(heard(again)) == events[6:]


def test_who_has_heard_the_end_is_told_not_to_come_back(person: User, fake_inference: FakeInference) -> None:
    program = Program(person)
    id = a_run(program)[1]["id"]
    last = follow(program, id)[-1]["id"]
    headers = program._headers() | {"Last-Event-ID": last}
    assert program.client.get(f"/api/v1/runs/{id}/events/", headers=headers).status_code == 204


@pytest.mark.parametrize("wrong", ["x", "-1", "1.5", "٣", "9" * 40])
def test_an_id_that_no_event_has_is_refused(person: User, fake_inference: FakeInference, wrong: str) -> None:
    program = Program(person)
    id = a_run(program)[1]["id"]
    headers = program._headers() | {"Last-Event-ID": wrong}
    assert program.client.get(f"/api/v1/runs/{id}/events/", headers=headers).status_code == 400
    follow(program, id)


async def test_tokens_come_as_they_are_written(person: User, fake_inference: FakeInference) -> None:
    fake_inference.delay = 0.3
    program = await in_thread(Program)(person)
    _, run = await in_thread(a_run)(program)
    async with listening(f"/api/v1/runs/{run['id']}/events/", program.secret) as listener:
        assert await listener.hear("token")
        assert b"run_finished" not in listener.heard
        assert fake_inference.rows  # it is still being written
    await gateway.joined(runner.run_stop(person, uuid.UUID(run["id"]), None))


async def test_a_client_that_goes_away_is_noticed_and_the_run_goes_on(
    person: User, fake_inference: FakeInference
) -> None:
    fake_inference.delay = 0.1
    program = await in_thread(Program)(person)
    _, run = await in_thread(a_run)(program)
    log = runner.log_of(uuid.UUID(run["id"]))
    assert log
    async with listening(f"/api/v1/runs/{run['id']}/events/", program.secret) as listener:
        await listener.hear("token")
        assert log.followed
    assert not log.followed
    assert not streams._open[person.pk]
    assert fake_inference.rows
    await gateway.joined(runner.run_stop(person, uuid.UUID(run["id"]), None))


async def test_a_revoked_key_ends_its_streams(person: User, fake_inference: FakeInference) -> None:
    fake_inference.delay = 0.5
    program = await in_thread(Program)(person)
    reader = await in_thread(Program)(person)
    _, run = await in_thread(a_run)(program)
    async with listening(f"/api/v1/runs/{run['id']}/events/", reader.secret) as listener:
        assert await listener.hear("started")
        await in_thread(revoke_key)(await ApiKey.objects.aget(pk=reader.key.pk))
        assert await listener.hear("error", timeout=30)
        assert b"revoked_key" in listener.heard
        assert b"run_finished" not in listener.heard
    await gateway.joined(runner.run_stop(person, uuid.UUID(run["id"]), None))


async def test_streams_of_one_person_are_limited(
    person: User, fake_inference: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 1)
    fake_inference.delay = 0.3
    program = await in_thread(Program)(person)
    _, run = await in_thread(a_run)(program)
    path = f"/api/v1/runs/{run['id']}/events/"
    async with listening(path, program.secret) as listener:
        await listener.hear("started")
        second = Listener(path, program.secret)
        assert await second.begin() == 429
        await second.leave()
    await gateway.joined(runner.run_stop(person, uuid.UUID(run["id"]), None))
    async with listening(path, program.secret) as listener:
        await listener.hear()


async def test_a_run_that_is_deleted_while_it_is_followed_ends_the_stream(
    person: User, fake_inference: FakeInference
) -> None:
    fake_inference.delay = 0.3
    program = await in_thread(Program)(person)
    _, run = await in_thread(a_run)(program)
    async with listening(f"/api/v1/runs/{run['id']}/events/", program.secret) as listener:
        await listener.hear("token")
        status, _ = await in_thread(program.delete)(f"runs/{run['id']}/")
        assert status == 204
        await listener.hear("run_finished")  # or the end of the stream
    assert not streams._open[person.pk]


# ---- jobs ----


@pytest.fixture
def job(person: User, fake_inference: FakeInference) -> Job:
    request = CreateVector(id="", pairs=(Pair("calm", "angry"),))
    return job_start(owner=person, kind="check_pairs", title="A job", request=request)  # of a kind that keeps nothing


def test_a_job_tells_its_progress_and_its_end(person: User, job: Job) -> None:
    program = Program(person)
    assert program.get(f"jobs/{job.pk}/events/")[0] == 200
    events = events_of(heard(program.last))
    assert events[-1]["event"] == "ended"
    assert {e["event"] for e in events[:-1]} <= {"progress"}
    assert (events[-1]["data"]["state"], events[-1]["data"]["id"]) == ("succeeded", str(job.pk))
    assert program.get(f"jobs/{job.pk}/")[1] == events[-1]["data"]
    headers = program._headers() | {"Last-Event-ID": events[-1]["id"]}
    assert program.client.get(f"/api/v1/jobs/{job.pk}/events/", headers=headers).status_code == 204


def test_jobs_are_listed_by_state_and_kind(person: User, job: Job, stranger: User) -> None:
    program = Program(person)
    program.get(f"jobs/{job.pk}/events/")
    heard(program.last)
    for query, count in (({"state": "succeeded"}, 1), ({"state": "failed"}, 0), ({"kind": "create_vector"}, 0)):
        assert len(program.get("jobs/", **query)[1]["data"]) == count
    other = Program(stranger)
    paths = (f"jobs/{job.pk}/", f"jobs/{job.pk}/events/")
    assert [other.get(path)[0] for path in paths] == [404, 404]
    assert other.post(f"jobs/{job.pk}/cancel/")[0] == 404


def test_a_job_is_cancelled_once(person: User, fake_inference: FakeInference) -> None:
    fake_inference.delay = 0.3
    request = CreateVector(id="", pairs=(Pair("calm", "angry"),))
    job = job_start(owner=person, kind="check_pairs", title="A job", request=request)
    program = Program(person)
    for _ in range(2):
        status, body = program.post(f"jobs/{job.pk}/cancel/")
        assert (status, body["state"]) == (200, "cancelled")


async def test_a_client_that_leaves_a_job_is_noticed(person: User, fake_inference: FakeInference) -> None:
    fake_inference.delay = 0.3
    request = CreateVector(id="", pairs=(Pair("calm", "angry"),))
    job = await in_thread(job_start)(owner=person, kind="check_pairs", title="A job", request=request)
    program = await in_thread(Program)(person)
    async with listening(f"/api/v1/jobs/{job.pk}/events/", program.secret) as listener:
        await listener.hear("progress")
        assert streams._open[person.pk] == 1
    assert streams._open[person.pk] == 0
    assert (await in_thread(program.post)(f"jobs/{job.pk}/cancel/"))[0] == 200
    await asyncio.sleep(0)
