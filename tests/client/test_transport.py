"""What is sent, what is sent again, and what never is."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from steerboard import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    AuthenticationError,
    JobFailed,
    OverloadedError,
    QuotaError,
    RateLimitError,
    Steerboard,
    SteerboardError,
    StreamInterrupted,
    ValidationError,
)

from tests.client.faults import URL, Script, completion, event, says, stream

LOST = httpx.ReadError("gone")
POLICY_RUN = {"id": "r", "state": "succeeded", "model": "m", "results": [{"output": "x", "trace": {}}]}


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits in these tests: what would have been waited."""
    seconds: list[float] = []

    async def later(pause: float) -> None:
        seconds.append(pause)

    monkeypatch.setattr("steerboard._transport.time.sleep", seconds.append)
    monkeypatch.setattr("steerboard._transport.asyncio.sleep", later)
    return seconds


def busy(status: int, code: str = "queue_full", **headers: str) -> httpx.Response:
    return says(status, {"error": {"code": code, "message": "Busy. Come back."}}, **headers)


# ---- what is sent again ----


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_what_changes_nothing_is_asked_for_again(status: int, waits: list[float]) -> None:
    script = Script(says(status), LOST, says(body={"data": []}))
    assert script.client().models.list() == []
    assert len(script.asked) == 3 and all(0 < pause < 2 for pause in waits)


@pytest.mark.parametrize("fault", [says(500), says(502), busy(503), LOST, httpx.ReadTimeout("slow")], ids=str)
def test_a_post_that_may_have_been_heard_is_never_sent_twice(fault: Any) -> None:
    script = Script(fault)
    with pytest.raises(APIError):
        script.client(max_retries=5).generation.generate("x")
    assert len(script.asked) == 1


@pytest.mark.parametrize("fault", [busy(429, Retry_After="3"), busy(503, Retry_After="3")], ids=["429", "503"])
def test_a_post_that_was_refused_waits_as_long_as_the_server_says(fault: Any, waits: list[float]) -> None:
    script = Script(fault, completion())
    assert script.client().generation.generate("x") == "Paris"
    assert waits == [3.0]


def test_a_post_that_never_left_is_sent_again() -> None:
    script = Script(httpx.ConnectError("refused"), completion())
    assert script.client().generation.generate("x") == "Paris"


def test_work_that_a_worker_had_begun_is_not_begun_again() -> None:
    script = Script(busy(503, "worker_lost", Retry_After="1"))
    with pytest.raises(OverloadedError) as lost:
        script.client().generation.generate("x")
    assert lost.value.code == "worker_lost" and lost.value.retry_after == 1


def test_a_creation_keeps_its_idempotency_key_however_often_it_is_sent() -> None:
    script = Script(LOST, says(500), says(201, {"id": "d"}), says(201, {"id": "e"}))
    client = script.client()
    assert client.datasets.create("D", [{"prompt": "a", "positive": "b", "negative": "c"}])["id"] == "d"
    client.datasets.create("D", [{"prompt": "a", "positive": "b", "negative": "c"}])
    keys = [request.headers["Idempotency-Key"] for request in script.asked]
    assert len(set(keys[:3])) == 1 and keys[3] != keys[0]
    assert len({request.content for request in script.asked}) == 1


def test_a_creation_that_is_still_being_answered_is_asked_for_again(waits: list[float]) -> None:
    script = Script(busy(409, "request_in_progress", Retry_After="1"), says(201, {"id": "p"}))
    assert script.client().policy.save({"name": "A b_c"}) == "p"
    assert waits == [1.0] and json.loads(script.asked[0].content)["name"] == "a-b_c"


def test_the_server_has_the_last_word_on_trying_again(waits: list[float]) -> None:
    spent = busy(429, "insufficient_quota", Retry_After="2", x_should_retry="false")
    with pytest.raises(QuotaError):
        Script(spent).client().generation.generate("x")
    with pytest.raises(OverloadedError):
        Script(busy(503, x_should_retry="false")).client().models.list()
    assert Script(busy(500, x_should_retry="true"), completion()).client().generation.generate("x") == "Paris"
    assert len(waits) == 1


def test_who_would_wait_for_minutes_is_told_at_once(waits: list[float]) -> None:
    with pytest.raises(RateLimitError) as limited:
        Script(busy(429, "rate_limit_exceeded", Retry_After="3000")).client().generation.generate("x")
    assert limited.value.retry_after == 3000 and waits == []
    with pytest.raises(RateLimitError):  # no waiting helps
        Script(busy(429)).client().models.list()


def test_retries_end(waits: list[float]) -> None:
    script = Script(*[busy(503, Retry_After="1") for _ in range(4)])
    with pytest.raises(OverloadedError):
        script.client(max_retries=3).generation.generate("x")
    assert len(script.asked) == 4 and waits == [1, 1, 1]


def test_a_date_says_when_to_come_back(waits: list[float]) -> None:
    script = Script(busy(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), completion())
    script.client().generation.generate("x")
    assert waits == [0.0]


def test_a_server_with_another_default_is_asked_which() -> None:
    gone = says(404, {"error": {"code": "model_not_found", "message": "No."}})
    script = Script(says(body={"id": "old"}), gone, says(body={"id": "new"}), completion(), completion())
    client = script.client(model=None)
    client.generation.generate("x")
    client.generation.generate("x")
    assert [json.loads(request.content)["model"] for request in script.asked if request.content] == [
        "old",
        "new",
        "new",
    ]


# ---- credentials ----


@pytest.mark.parametrize("where", ["https://elsewhere.test/v1/completions", "/v1/completions/"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_carries_no_key_anywhere(status: int, where: str) -> None:
    script = Script(httpx.Response(status, headers={"location": where}))
    with pytest.raises(APIError, match="sent on to") as sent_on:
        script.client().generation.generate("x")
    assert sent_on.value.status_code == status and sent_on.value.cure and len(script.asked) == 1


def test_one_credential_is_sent_and_which_depends_on_whose_thing_it_is() -> None:
    script = Script(completion(), says(body={}), completion(), says(body={"models": []}))
    client = script.client("the-key", access_token="the-token")
    client.generation.generate("x")
    client.whoami()
    script.client(None, access_token="the-token").generation.generate("x")
    client.get_huggingface_models()
    sent = [request.headers.get("authorization") for request in script.asked]
    assert sent == ["Bearer the-key", "Bearer the-token", "Bearer the-token", None]


def test_without_credentials_nothing_is_sent() -> None:
    script = Script()
    with pytest.raises(AuthenticationError, match="login") as nobody:
        script.client(None).generation.generate("x")
    assert nobody.value.cure and nobody.value.status_code is None


def test_an_old_token_is_renewed_once_and_for_all() -> None:
    new = says(body={"session": {"access_token": "new", "refresh_token": "r2"}})
    script = Script(says(401), new, says(body={"email": "m"}), says(body={"email": "m"}))
    client = script.client(None, access_token="old", refresh_token="r1")
    assert client.whoami() == client.whoami() == {"email": "m"}
    assert script.paths == ["GET /auth/whoami", "POST /auth/refresh", "GET /auth/whoami", "GET /auth/whoami"]
    assert "authorization" not in script.asked[1].headers
    assert [script.asked[i].headers["authorization"] for i in (0, 2, 3)] == ["Bearer old", "Bearer new", "Bearer new"]


def test_a_key_that_is_refused_is_not_renewed() -> None:
    script = Script(says(401, {"detail": "No."}))
    with pytest.raises(AuthenticationError):
        script.client("key", access_token="old", refresh_token="r1").generation.generate("x")
    assert len(script.asked) == 1


def test_who_logs_in_as_somebody_else_leaves_the_others_key_behind() -> None:
    session = {"session": {"access_token": "hers", "refresh_token": "r"}}
    script = Script(says(body=session), completion(), says(body=session), completion())
    client = script.client("his-key")
    client.login("her@example.org", "words")
    client.generation.generate("x")
    client.set_key("her-key")
    client.login("her@example.org", "words")
    client.generation.generate("x")
    assert [script.asked[i].headers["authorization"] for i in (1, 3)] == ["Bearer hers", "Bearer her-key"]


def test_a_token_that_cannot_be_renewed_is_an_authentication_error() -> None:
    script = Script(says(401, {"detail": "The token has expired."}), says(401))
    with pytest.raises(AuthenticationError, match="expired"):
        script.client(None, access_token="old", refresh_token="r1").whoami()
    assert len(script.asked) == 2


# ---- errors ----


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"code": "x", "message": "Send less.", "request_id": "7"}}, "Send less."),
        ({"detail": "Send less."}, "Send less."),
        ({"detail": [{"loc": ["body", "prompt"], "msg": "is missing"}]}, "prompt: is missing"),
        ({"error": "Send less."}, "Send less."),
        ({"other": 1}, "POST /v1/completions was answered with 422."),
    ],
)
def test_every_way_to_refuse_is_read(body: Any, message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Script(says(422, body, x_request_id="7")).client().generation.generate("x")
    error = refused.value
    assert (error.message, error.status_code, error.details, error.request_id) == (message, 422, body, "7")
    assert str(error) == f"[422] {message}"


def test_a_spent_quota_is_told_from_a_limit_of_the_minute_by_how_long_it_lasts() -> None:
    said = {"detail": "Today's tokens are used up."}
    for headers, kind in (
        ({}, QuotaError),
        ({"Retry_After": "9000"}, QuotaError),
        ({"Retry_After": "30"}, RateLimitError),
    ):
        with pytest.raises(RateLimitError) as limited:
            Script(says(429, said, **headers)).client(max_retries=0).steering.generate_pairs("calm")
        assert limited.type is kind


def test_fields_at_fault_are_named() -> None:
    body = {"error": {"code": "invalid_request", "message": "m", "fields": {"pairs.1.positive": "It is empty."}}}
    with pytest.raises(ValidationError) as refused:
        Script(says(400, body)).client().datasets.create("D", [])
    assert refused.value.fields == {"pairs.1.positive": "It is empty."}


def test_a_page_instead_of_an_answer_is_an_error_without_its_markup() -> None:
    page = httpx.Response(502, html="<html><b>Bad gateway</b></html>")
    with pytest.raises(APIError) as broken:
        Script(page).client().generation.generate("x")
    assert "<" not in broken.value.message
    with pytest.raises(APIError, match="not JSON"):
        Script(httpx.Response(200, html="<html></html>")).client().generation.generate("x")


def test_no_answer_in_time_and_no_answer_at_all_differ() -> None:
    with pytest.raises(APITimeoutError):
        Script(httpx.ReadTimeout("slow")).client().generation.generate("x")
    with pytest.raises(APIConnectionError) as lost:
        Script(httpx.ConnectError("refused")).client(max_retries=0).generation.generate("x")
    assert not isinstance(lost.value, APITimeoutError) and URL in lost.value.message


def test_a_late_failure_of_patient_work_is_an_error() -> None:
    late = httpx.Response(200, content=b"   error 503: The worker is gone. Try again.")
    with pytest.raises(OverloadedError, match="The worker is gone"):
        Script(late).client().steering.generate_pairs("calm")
    waited = httpx.Response(200, content=b'      {"pairs": []}')
    assert Script(waited).client().steering.generate_pairs("calm") == {"pairs": []}


# ---- streams ----


def chunk(text: str, reason: str | None = None) -> str:
    return event(json.dumps({"choices": [{"index": 0, "text": text, "finish_reason": reason}]}))


def test_a_stream_that_breaks_off_is_not_asked_for_again() -> None:
    script = Script(stream(chunk("Pa"), chunk("ri"), error=LOST))
    pieces = []
    with pytest.raises(StreamInterrupted) as broken:
        for piece in script.client(max_retries=5).generation.stream("x"):
            pieces.append(piece)
    assert pieces == ["Pa", "ri"] and broken.value.so_far == "Pari" and len(script.asked) == 1


def test_a_stream_that_ends_before_its_end_has_broken_off() -> None:
    with pytest.raises(StreamInterrupted):
        list(Script(stream(chunk("Pa"), 'data: {"choi')).client().generation.stream("x"))


def test_events_are_read_however_they_are_cut() -> None:
    text = ": comment\r\n\r\n" + chunk("Pa").replace("\n", "\r\n") + chunk("ris", "stop") + "data:[DONE]\n\n"
    pieces = list(Script(stream(*text)).client().generation.stream("x"))
    assert pieces == ["Pa", "ris"] and pieces[-1].finish_reason == "stop"


def test_an_error_in_a_stream_is_raised() -> None:
    failed = event(json.dumps({"error": {"code": "queue_full", "message": "Full."}}))
    with pytest.raises(OverloadedError, match="Full"):
        list(Script(stream(chunk("Pa"), failed)).client().generation.stream("x"))


def test_what_is_refused_before_a_stream_is_refused_as_anything_else() -> None:
    with pytest.raises(ValidationError):
        list(Script(says(400, {"error": {"message": "No."}})).client().generation.stream("x"))
    with pytest.raises(APIError, match="did not answer with a stream"):
        list(Script(says(200, {})).client().generation.stream("x"))


def test_events_of_building_are_waited_for() -> None:
    going = event('{"status": "progress", "progress": 0.5}')
    done = event('{"status": "complete", "result": {"steering_vector_id": "v"}}')
    script = Script(stream(going, done), stream(going, event('{"status": "error", "message": "No pairs."}')))
    client = script.client()
    assert client.steering.generate_vectors(["a"], ["b"], ["c"], method="caa") == "v"
    with pytest.raises(APIError, match=r"No pairs\."):
        client.steering.generate_vectors(["a"], ["b"], ["c"])
    with pytest.raises(StreamInterrupted):
        Script(stream(going)).client().steering.generate_vectors(["a"], ["b"], ["c"])


JOB = {"id": "j", "state": "running", "title": "T", "error": None}
ENDED = {**JOB, "state": "succeeded", "vector": "v"}


def test_a_job_is_followed_on_after_a_break_where_it_was() -> None:
    first = stream(event(json.dumps(JOB), id="1", event="progress"), error=LOST)
    second = stream(event(json.dumps(ENDED), id="2", event="ended"))
    script = Script(first, second)
    assert [job["state"] for job in script.client().jobs.follow("j")] == ["running", "succeeded"]
    assert [request.headers.get("last-event-id") for request in script.asked] == [None, "1"]


def test_a_job_that_fails_is_an_error_with_the_job() -> None:
    failed = {**JOB, "state": "failed", "error": {"code": "too_few_pairs", "message": "Four pairs at least."}}
    script = Script(says(body=JOB), stream(event(json.dumps(failed), id="2", event="ended")))
    with pytest.raises(JobFailed, match="Four pairs") as ended:
        script.client().jobs.wait("j")
    assert ended.value.code == "too_few_pairs" and ended.value.details == failed


def test_a_job_whose_events_break_off_for_ever_is_given_up() -> None:
    script = Script(says(body=JOB), *[stream(error=LOST) for _ in range(9)])
    with pytest.raises(APIConnectionError):
        script.client(max_retries=2).jobs.wait("j")
    assert len(script.asked) <= 5


def test_a_policy_that_takes_long_is_looked_at_until_it_has_ended(waits: list[float]) -> None:
    going = {**POLICY_RUN, "state": "running", "results": None}
    without = {**POLICY_RUN, "results": [{"output": "x", "trace": None}]}
    script = Script(says(202, going), says(body=going), says(body=without), says(body={"traces": [{"rounds": 1}]}))
    assert script.client().policy.run("p", policy={})["trace"] == {"rounds": 1}
    assert script.paths[1:] == ["GET /api/v1/policies/runs/r/"] * 2 + ["GET /api/v1/policies/runs/r/trace/"]
    assert waits


def test_pages_are_read_to_the_last_one() -> None:
    script = Script(
        says(body={"data": [{"id": 1}], "next_cursor": "c"}), says(body={"data": [{"id": 2}], "next_cursor": None})
    )
    assert script.client().datasets.list() == [{"id": 1}, {"id": 2}]
    assert script.asked[1].url.params["cursor"] == "c" and "cursor" not in script.asked[0].url.params


def test_names_and_ids_cannot_leave_their_place_in_an_address() -> None:
    script = Script(says(body={}), says(body={}))
    client = script.client()
    client.check_waitlist("a+b@example.org&admin=1")
    client.models.get("../keys?x=1")
    assert script.asked[0].url.params["email"] == "a+b@example.org&admin=1"
    assert b"?" not in script.asked[1].url.raw_path


# ---- the same over the asynchronous transport ----


async def test_the_asynchronous_client_retries_renews_and_refuses_alike(waits: list[float]) -> None:
    script = Script(busy(429, Retry_After="3"), completion())
    assert await script.aclient().generation.generate("x") == "Paris" and waits == [3.0]
    once = Script(LOST)
    with pytest.raises(APIConnectionError):
        await once.aclient().generation.generate("x")
    assert len(once.asked) == 1
    new = says(body={"session": {"access_token": "new"}})
    renewed = Script(says(401), new, says(body={"email": "m"}))
    assert await renewed.aclient(None, access_token="old", refresh_token="r").whoami() == {"email": "m"}


async def test_the_asynchronous_client_streams_alike() -> None:
    script = Script(stream(chunk("Pa"), chunk("ris", "stop"), "data: [DONE]\n\n"))
    assert [piece async for piece in script.aclient().generation.stream("x")] == ["Pa", "ris"]
    broken = Script(stream(chunk("Pa"), error=LOST))
    with pytest.raises(StreamInterrupted) as ended:
        async for _ in broken.aclient().generation.stream("x"):
            pass
    assert ended.value.so_far == "Pa"


def test_a_client_says_where_it_speaks_to_and_not_with_what() -> None:
    client = Steerboard(URL, "sk-sb-secret")
    assert "secret" not in repr(client) and "secret" not in repr(client._core.credentials)
    with pytest.raises(SteerboardError):
        client.set_key("two\nlines")
