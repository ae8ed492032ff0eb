"""What a caller of the engine sees: events, limits, stop strings, cancelling, jobs beside streams, and errors."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
import torch

from inference.client import connect
from inference.errors import InferenceError, InvalidRequest, NotFound
from inference.store import dump, seal
from inference.transports.inprocess import InProcess
from inference.types import (
    CheckPairs,
    CreateVector,
    Failed,
    Finished,
    GenerationRequest,
    Intervention,
    Message,
    Pair,
    SamplingParams,
    Site,
    Started,
    SteeringVector,
    Token,
)
from tests.inference.driver import add, alone, direction, request, start, start_job
from tests.waiting import auntil

PAIRS = tuple(
    Pair(
        positive=f" calm reply number {i} near the river",
        negative=f" angry letter number {i} over the dog",
        prompt=f"Case {i}:",
    )
    for i in range(8)
)


def test_events_are_numbered_from_started_to_one_end(make_engine):
    events = start(make_engine(), request("a", range(10, 20), max_tokens=6)).wait().events
    assert [e.seq for e in events] == list(range(8))
    assert isinstance(events[0], Started) and isinstance(events[-1], Finished)
    assert events[0].prompt_tokens == 10
    assert all(isinstance(e, Token) for e in events[1:-1])
    assert events[-1].usage.completion_tokens == 6 and events[-1].reason == "length"


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others(make_engine):
    engine = make_engine()
    made = [alone(engine, request(f"s{i}", range(10, 20), temperature=1.0, seed=s)) for i, s in enumerate([5, 5, 6])]
    assert made[0] == made[1] != made[2]


def test_without_a_seed_one_is_drawn_and_reported(make_engine):
    engine = make_engine()
    first = start(engine, request("a", range(10, 20), temperature=1.0)).wait()
    again = request("b", range(10, 20), temperature=1.0, seed=first.finished.receipt.seed)
    assert alone(engine, again) == first.tokens


def test_log_probabilities_equal_those_of_hugging_face(make_engine):
    engine = make_engine("qwen3")
    ids = list(range(10, 20))
    events = start(engine, request("a", ids, max_tokens=4, logprobs=True, top_logprobs=3)).wait().events
    tokens = [e for e in events if isinstance(e, Token)]
    full = torch.tensor([ids + [t.token_id for t in tokens]])
    expected = engine.batch.model.hf(full, use_cache=False).logits[0, 9:-1].log_softmax(-1)
    for t, row in zip(tokens, expected, strict=True):
        assert t.logprob == pytest.approx(float(row[t.token_id]), abs=1e-5)
        assert [a.logprob for a in t.top] == pytest.approx(row.topk(3).values.tolist(), abs=1e-5)


def test_a_stop_string_ends_the_text_before_it(make_engine):
    engine = make_engine()
    whole = start(engine, request("a", range(10, 20), max_tokens=40)).wait().text
    stop = whole[10:13]
    cut = start(engine, request("b", range(10, 20), max_tokens=40, stop=(stop,))).wait()
    assert cut.text == whole[: whole.index(stop)]
    assert cut.finished.reason == "stop"


def test_the_end_token_ends_a_row_and_is_not_text(make_engine):
    engine = make_engine()
    free = alone(engine, request("a", range(10, 20), max_tokens=12))
    engine.batch.model.eos_ids = frozenset({free[4]})
    ended = start(engine, request("b", range(10, 20), max_tokens=12, ignore_eos=False)).wait()
    assert ended.tokens == free[: free.index(free[4]) + 1]
    assert ended.finished.reason == "stop"


def test_cancel_keeps_what_was_written(make_engine):
    engine = make_engine()
    listener = start(engine, request("a", range(10, 20), max_tokens=100))
    listener.wait_for_tokens(3)
    engine.cancel("a")
    listener.wait()
    assert listener.finished.reason == "cancelled"
    assert listener.finished.usage.completion_tokens == len(listener.tokens) >= 3
    assert engine.describe().rows == 0


def test_more_rows_than_fit_wait_and_all_are_served(make_engine):
    engine = make_engine(max_rows=3)
    listeners = [start(engine, request(f"r{i}", range(10, 20 + i % 5), max_tokens=10)) for i in range(12)]
    most = 0
    while not all(x.events and isinstance(x.events[-1], Finished) for x in listeners):
        most = max(most, engine.describe().rows)
        for x in listeners:
            while not x.inbox.empty():
                x.take()
    assert most <= 3


def test_a_full_waiting_list_refuses_with_a_retry_time(make_engine):
    engine = make_engine(max_rows=1, max_waiting=2)
    listeners = []
    with pytest.raises(InferenceError) as refusal:
        for i in range(20):
            listeners.append(start(engine, request(f"r{i}", range(10, 20), max_tokens=100)))
            time.sleep(0.01)
    assert refusal.value.code == "queue_full" and refusal.value.retry_after
    for x in listeners:
        engine.cancel(x.take().id)


def test_the_cache_budget_is_never_exceeded(make_engine):
    per_token = 2 * 4 * 2 * 8 * 8  # keys and values, layers, heads, head width, bytes
    engine = make_engine(cache_bytes=200 * per_token)
    listeners = [start(engine, request(f"r{i}", range(10, 30), max_tokens=40)) for i in range(8)]
    for x in listeners:
        assert x.wait().finished.reason == "length"
    with pytest.raises(InvalidRequest, match="may be 100 tokens"):
        make_engine(cache_bytes=100 * per_token).prepare(request("x", range(10, 30), max_tokens=81))


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (GenerationRequest("x"), "one_input"),
        (GenerationRequest("x", prompt="a", token_ids=(1,)), "one_input"),
        (GenerationRequest("x", token_ids=(10**6,)), "bad_token_ids"),
        (GenerationRequest("x", token_ids=()), "bad_token_ids"),
        (GenerationRequest("x", messages=()), "empty_messages"),
        (GenerationRequest("x", prompt="a " * 10_000_000), "prompt_too_long"),
        (request("x", [9] * 128), "prompt_too_long"),
        (request("x", [9] * 100, max_tokens=60), "max_tokens_too_large"),
        (request("x", [9], interventions=[Intervention()]), "one_source"),
        (request("x", [9], interventions=[Intervention(vector_id="0" * 64)]), "no_layer"),
        (request("x", [9], interventions=[add(32, 1, 1)] * 129), "too_many_interventions"),
        (request("x", [9], interventions=[add(32, 77, 1)]), "layer_out_of_range"),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_it_is_queued(make_engine, bad, code):
    with pytest.raises(InvalidRequest) as refusal:
        make_engine().prepare(bad)
    assert refusal.value.code == code
    assert len(refusal.value.message) > 20


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (request("x", [9], interventions=[Intervention(vector_id="0" * 64, layers=(1,))]), "vector_not_found"),
        (GenerationRequest("x", model="gpt-5", prompt="a"), "model_not_served"),
    ],
)
def test_what_does_not_exist_is_not_found(make_engine, bad, code):
    with pytest.raises(NotFound) as refusal:
        make_engine().prepare(bad)
    assert refusal.value.code == code


def build(engine) -> SteeringVector:
    result = start_job(engine, CreateVector("job", PAIRS)).wait().result
    return engine.vectors.get(result.payload["vector"]["id"])


def test_a_vector_of_another_model_is_refused(make_engine):
    engine = make_engine()
    foreign = seal(replace(build(engine), model="another-model"))
    engine.vectors.put(dump(foreign))
    with pytest.raises(InvalidRequest) as refusal:
        engine.prepare(request("x", [9], interventions=[Intervention(vector_id=foreign.id, layers=(1,))]))
    assert refusal.value.code == "vector_model_mismatch"


def test_relative_strength_is_in_units_of_the_recorded_norm(make_engine):
    engine = make_engine()
    vector = build(engine)
    steer = Intervention(vector_id=vector.id, layers=(1,), unit="relative", strength=0.5)
    (applied,) = start(engine, request("x", range(10, 20), interventions=[steer])).wait().finished.receipt.applied
    assert applied.mean_dose == pytest.approx(0.5 * vector.residual_norms[1], rel=1e-5)
    assert (applied.prompt_tokens, applied.generated_tokens) == (10, 23)
    assert applied.hook_name == Site(1).hook_name


def test_a_stream_goes_on_while_a_vector_is_built(make_engine):
    engine = make_engine()
    plain = request("p", range(10, 20), max_tokens=80)
    before = alone(engine, plain)
    job = start_job(engine, CreateVector("job", PAIRS * 8))
    job.take()
    stream = start(engine, plain).wait()
    assert stream.tokens == before
    assert isinstance(job.wait().result.payload["vector"], dict)
    assert len(job.progress) > 3 and [e.seq for e in job.events] == list(range(len(job.events)))


def test_a_cancelled_job_ends_and_leaves_the_engine_well(make_engine):
    engine = make_engine()
    job = start_job(engine, CreateVector("job", PAIRS * 20))
    job.take()
    engine.cancel("job")
    assert job.wait().failed.code == "cancelled"
    assert alone(engine, request("p", range(10, 20)))


def test_a_bad_job_fails_with_a_sentence(make_engine):
    assert start_job(make_engine(), CreateVector("job", PAIRS[:1])).wait().failed.message
    assert start_job(make_engine(), CheckPairs("c", PAIRS)).wait().result.payload["lengths"]


def test_overflowing_numbers_fail_one_row_only(make_engine):
    engine = make_engine()
    huge = replace(add(32, 1, 1), strength=1e300, directions=(direction(32, 1, 1, norm=1e38),))
    neighbour = start(engine, request("n", range(10, 20), max_tokens=60))
    broken = start(engine, request("x", range(10, 20), max_tokens=60, interventions=[huge])).wait()
    assert broken.failed.code == "numbers_overflowed"
    assert neighbour.wait().tokens == alone(engine, request("again", range(10, 20), max_tokens=60))


# ---- through the client, as everybody else sees it ----


@pytest.fixture
async def client(tiny_folder, tmp_path):
    inference = connect(f"inprocess://{tiny_folder('llama')}", data_dir=tmp_path, dtype="float64")
    assert isinstance(inference, InProcess)
    while (await inference.describe()).state == "loading":
        await asyncio.sleep(0.01)
    yield inference
    await inference.close()


async def test_a_chat_streams_through_the_client(client):
    ask = GenerationRequest("c", messages=(Message("user", "Hello"),), sampling=SamplingParams(max_tokens=5))
    events = [e async for e in client.generate(ask)]
    assert isinstance(events[-1], Finished)


async def test_leaving_the_iterator_cancels_the_row(client):
    async for event in (stream := client.generate(request("c", range(10, 20), max_tokens=100))):
        if isinstance(event, Token):
            break
    await stream.aclose()

    async def left() -> bool:
        return (await client.describe()).rows == 0

    await auntil(left)


async def test_a_refusal_is_an_event_not_an_exception(client):
    (event,) = [e async for e in client.generate(GenerationRequest("c", prompt="a", token_ids=(1,)))]
    assert isinstance(event, Failed) and event.code == "one_input"


async def test_a_vector_travels_through_the_client(client):
    results = [e async for e in client.run(CreateVector("v", PAIRS))]
    id = results[-1].payload["vector"]["id"]
    data = await client.get_vector(id)
    assert (await client.put_vector(data)).id == id


async def test_closing_ends_what_runs(tiny_folder, tmp_path):
    inference = connect(f"inprocess://{tiny_folder('llama')}", data_dir=tmp_path, dtype="float64")
    while (await inference.describe()).state == "loading":
        await asyncio.sleep(0.01)
    stream = inference.generate(request("c", range(10, 20), max_tokens=100))
    await anext(stream)
    await inference.close()
    events = [e async for e in stream]
    assert isinstance(events[-1], Failed) and events[-1].code == "shutting_down"


async def test_a_missing_model_is_a_state_with_a_cure_not_a_crash(tmp_path):
    inference = connect("inprocess:///no/such/folder", data_dir=tmp_path)
    while (info := await inference.describe()).state == "loading":
        await asyncio.sleep(0.01)
    assert info.state == "failed" and "INFERENCE_URL" in info.problem
    (event,) = [e async for e in inference.generate(request("c", [1]))]
    assert isinstance(event, Failed) and event.code == "model_not_found"
    await inference.close()


def test_a_wrong_url_is_refused(tmp_path):
    with pytest.raises(InvalidRequest):
        connect("carrier-pigeon://default", data_dir=tmp_path)
