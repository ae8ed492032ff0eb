"""What every transport promises, asked of the engine in this process and of one behind Redis."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.client import Inference, connect
from inference.errors import InferenceError
from inference.store import dump, load
from inference.types import (
    AppliedConstraint,
    CheckPairs,
    CombineVectors,
    CompareVectors,
    Constraint,
    CreateVector,
    Datapoint,
    Direction,
    Divergence,
    Failed,
    Finished,
    Fired,
    FitDetector,
    GenerationRequest,
    Intervention,
    LayerStats,
    Message,
    ModelInfo,
    OptimiseVector,
    Pair,
    Positions,
    Probe,
    Progress,
    PromptRead,
    ReadFeatures,
    ReadProbes,
    Result,
    SamplingParams,
    Score,
    Scored,
    ScoreItem,
    Site,
    Started,
    SteeringVector,
    Token,
    ToolCall,
    VectorTerm,
    Watch,
)
from tests.inference import saes, stack
from tests.inference.stack import Following, collect, long, needs_redis, tokens_of
from tests.waiting import auntil

PAIRS = tuple(
    Pair(positive=f" calm reply number {i}", negative=f" angry letter number {i}", prompt=f"Case {i}:")
    for i in range(8)
)


@dataclass
class Clients:
    inprocess: Inference
    remote: Inference | None
    url: str
    model: str  # the folder


@pytest.fixture(scope="module")
def clients(tiny_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    tmp = tmp_path_factory.mktemp("contract")
    model = str(stack.stretch(tiny_folder("llama"), tmp / "tiny-llama"))
    inprocess = connect(f"inprocess://{model}", data_dir=tmp / "inprocess", dtype="float64")
    try:
        if not stack.shutil.which("redis-server"):
            yield Clients(inprocess, None, "", model)
            return
        server = stack.RedisServer(tmp)
        worker = stack.WorkerProcess(server.url, model, tmp, "contract")
        remote = connect(server.url, data_dir=tmp / "remote")
        try:
            asyncio.run(stack.until_ready(remote, worker))
            yield Clients(inprocess, remote, server.url, model)
        finally:
            asyncio.run(remote.close())
            worker.kill()
            server.stop()
    finally:
        asyncio.run(inprocess.close())


@pytest.fixture(params=["inprocess", pytest.param("remote", marks=needs_redis)])
async def client(request: pytest.FixtureRequest, clients: Clients) -> Inference:
    chosen: Inference = getattr(clients, request.param)
    await auntil(lambda: is_ready(chosen), "the model is loaded")
    return chosen


async def is_ready(client: Inference) -> bool:
    return (await client.describe()).state == "ready"


def ask(id: str, *, max_tokens: int = 12, seed: int = 3, steer: Intervention | None = None) -> GenerationRequest:
    sampling = SamplingParams(max_tokens=max_tokens, seed=seed, ignore_eos=True)
    return GenerationRequest(id, token_ids=(5, 6, 7, 8), sampling=sampling, interventions=(steer,) if steer else ())


def vector_file(info: ModelInfo, layer: int = 1, seed: int | None = None) -> bytes:
    values = np.linspace(-1, 1, info.d_model, dtype=np.float32)
    if seed is not None:
        values = np.random.default_rng(seed).normal(size=info.d_model).astype(np.float32)
    stats = (LayerStats(layer, 1.0, 2.0, 3.0, 0.9, 2.0, 0.8),)
    return dump(
        SteeringVector(
            id="",
            model=info.id,
            revision=info.revision,
            directions=(Direction(Site(layer), values),),
            method="caa",
            read_positions="last",
            residual_norms={layer: 2.0},
            stats=stats,
            recommended_layer=layer,
            recommended_strength=1.0,
            reason="a test",
            dataset_digest="",
            n_pairs=8,
        )
    )


async def test_what_takes_long_to_check_keeps_no_loop_waiting(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = clients.inprocess
    await auntil(lambda: is_ready(client), "the model is loaded")
    in_threads, to_thread = [], asyncio.to_thread

    async def noted(function: Any, request: Any, *args: Any) -> Any:
        in_threads.append(request.id)
        return await to_thread(function, request, *args)

    vector = await client.put_vector(vector_file(await client.describe()))
    steer = Intervention(strength=4.0, vector_id=vector.id, layers=(1,))
    sampling = SamplingParams(max_tokens=2)
    monkeypatch.setattr(asyncio, "to_thread", noted)
    long = GenerationRequest("long", prompt="a word " * 1000, sampling=sampling)
    call = ToolCall("c", "f", '{"text": "' + 3000 * "b" + '"}')
    called = (Message("user", "Hi"), Message("assistant", "", tool_calls=(call,)))
    calls = GenerationRequest("calls", messages=called, sampling=sampling)
    for request in (ask("short"), ask("steered", steer=steer), long, calls):
        assert await collect(client, request)
    assert in_threads == ["steered", "long", "calls"]


async def test_events_come_in_order_from_started_to_one_end(client: Inference) -> None:
    events = await collect(client, ask("order"))
    assert [e.seq for e in events] == list(range(14))
    assert {e.id for e in events} == {"order"}
    assert isinstance(events[0], Started) and isinstance(events[-1], Finished)
    assert all(isinstance(e, Token) for e in events[1:-1])
    assert events[-1].usage.completion_tokens == 12


@needs_redis
async def test_a_seed_gives_the_same_tokens_through_either_transport(clients: Clients) -> None:
    assert clients.remote
    await auntil(lambda: is_ready(clients.inprocess), "the model is loaded")
    data = vector_file(await clients.remote.describe())
    written = []
    for client in (clients.inprocess, clients.remote):
        id = (await client.put_vector(data)).id
        steer = Intervention(strength=4.0, vector_id=id, layers=(1,))
        base = tokens_of(await collect(client, ask("base")))
        steered = await collect(client, ask("steered", steer=steer))
        assert isinstance(steered[-1], Finished) and steered[-1].receipt.applied[0].vector_id == id
        written.append((base, tokens_of(steered)))
    assert written[0] == written[1]
    assert written[0][0] != written[0][1]


async def test_scores_of_the_prompt_and_bytes_of_tokens_cross_the_transport(client: Inference) -> None:
    sampling = SamplingParams(
        max_tokens=2, logprobs=True, top_logprobs=2, prompt_logprobs=True, logit_bias={200: 100.0}, fit=True
    )
    events = await collect(client, GenerationRequest("scores", prompt="A calm 猫", sampling=sampling))
    started, *middle, end = events
    assert isinstance(started, Started) and isinstance(end, Finished)
    read = [token for event in middle if isinstance(event, PromptRead) for token in event.tokens]
    assert "".join(token.token for token in read) == "A calm 猫" and len(read) == started.prompt_tokens
    assert read[0].logprob is None and all(t.logprob is not None and len(t.top) == 2 for t in read[1:])
    written = [event for event in middle if isinstance(event, Token)]
    assert [event.token_id for event in written] == [200, 200] and all(len(e.top) == 2 for e in written)
    assert any(alternative.raw for token in read for alternative in token.top) or all(e.token for e in written)


async def test_a_bad_request_is_one_failed_event(client: Inference) -> None:
    (event,) = await collect(client, GenerationRequest("bad", prompt="a", token_ids=(1,)))
    assert isinstance(event, Failed)
    assert (event.id, event.seq, event.kind, event.code) == ("bad", 0, "invalid_request", "one_input")


async def test_a_model_that_nobody_serves_is_refused_with_those_that_are(client: Inference) -> None:
    jobs = (CheckPairs("x", PAIRS, model="gpt-5"), CreateVector("x", PAIRS, model="gpt-5"))
    for request in (GenerationRequest("x", model="gpt-5", prompt="a"), *jobs):
        (event,) = await collect(client, request)
        assert isinstance(event, Failed) and (event.kind, event.code) == ("not_found", "model_not_served")
        assert "tiny-llama" in event.message


async def test_the_served_model_may_be_named(client: Inference) -> None:
    named = GenerationRequest("n", model="tiny-llama", token_ids=(5,), sampling=SamplingParams(max_tokens=2))
    assert isinstance((await collect(client, named))[-1], Finished)


@needs_redis
async def test_scores_and_divergence_are_the_same_through_either_transport(clients: Clients) -> None:
    assert clients.remote
    await auntil(lambda: is_ready(clients.inprocess), "the model is loaded")
    data = vector_file(await clients.remote.describe(), layer=2)
    found = []
    for client in (clients.inprocess, clients.remote):
        steer = Intervention(strength=4.0, vector_id=(await client.put_vector(data)).id, layers=(2,))
        items = tuple(ScoreItem((" yes", " an angry letter"), prompt="A calm", interventions=i) for i in ((), (steer,)))
        for job in (Score("score", items), Divergence("kl", ("The quick brown fox", "A calm reply"), (steer,))):
            *progress, end = await collect(client, job)
            assert isinstance(end, Result) and all(isinstance(event, Progress) for event in progress)
            found.append(end.payload)
    assert found[:2] == found[2:]
    base, steered = found[0]["items"]
    assert base["logprobs"][0] != steered["logprobs"][0] and found[1]["texts"][0]["kl"] > 0


async def test_a_score_that_names_an_unknown_vector_is_one_failed_event(client: Inference) -> None:
    lost = (Intervention(vector_id="0" * 64, layers=(1,)),)
    item = ScoreItem((" yes",), prompt="A calm", interventions=lost)
    for job in (Score("lost", (item,)), Divergence("lost", ("The quick brown fox",), lost)):
        (event,) = await collect(client, job)
        assert isinstance(event, Failed) and event.code == "vector_not_found"


async def test_a_score_may_be_cancelled(client: Inference) -> None:
    items = tuple(ScoreItem((" yes", " no"), prompt="A calm reply " * 20 + "!" * (n % 50)) for n in range(2000))
    stream = client.run(Score("scored", items))
    async for event in stream:
        if isinstance(event, Progress) and event.done:
            await client.cancel("scored")
            break
    rest = [event async for event in stream]
    assert isinstance(rest[-1], Failed) and rest[-1].code == "cancelled"


async def test_an_unknown_vector_is_one_failed_event(client: Inference) -> None:
    (event,) = await collect(client, ask("v", steer=Intervention(vector_id="0" * 64, layers=(1,))))
    assert isinstance(event, Failed) and event.code == "vector_not_found"


async def test_cancel_keeps_what_was_written(client: Inference) -> None:
    run = Following(client, long("stop"))
    await run.tokens(3)
    await client.cancel("stop")
    end = await run.end()
    assert isinstance(end, Finished) and end.reason == "cancelled"
    assert end.usage.completion_tokens == len(tokens_of(run.events))


async def test_cancelling_what_is_not_there_is_harmless(client: Inference) -> None:
    await client.cancel("never was")


async def test_an_id_may_be_used_again(client: Inference) -> None:
    run = Following(client, long("again"))
    await run.tokens(1)
    await client.cancel("again")
    await run.end()
    assert isinstance((await collect(client, ask("again")))[-1], Finished)


async def test_leaving_the_iterator_frees_the_row(client: Inference) -> None:
    stream = client.generate(long("left"))
    async for event in stream:
        if isinstance(event, Token):
            break
    await stream.aclose()  # type: ignore[attr-defined]

    async def free() -> bool:
        return (await client.describe()).rows == 0

    await auntil(free, "the row has left")


async def test_a_vector_comes_back_as_it_was_put(client: Inference) -> None:
    data = vector_file(await client.describe(), layer=2)
    vector = await client.put_vector(data)
    assert await client.get_vector(vector.id) == data


async def test_a_vector_that_nobody_has_is_not_found(client: Inference) -> None:
    with pytest.raises(InferenceError) as refusal:
        await client.get_vector("1" * 64)
    assert refusal.value.code == "vector_not_found"


async def test_a_vector_that_was_built_can_be_fetched_and_used(client: Inference) -> None:
    *progress, result = await collect(client, CreateVector("build", PAIRS))
    assert isinstance(result, Result) and all(isinstance(e, Progress) for e in progress)
    assert [e.seq for e in (*progress, result)] == list(range(len(progress) + 1))
    id = result.payload["vector"]["id"]
    assert (await client.put_vector(await client.get_vector(id))).id == id
    steered = await collect(client, ask("use", steer=Intervention(vector_id=id, layers=(1,))))
    assert isinstance(steered[-1], Finished)


async def test_stored_vectors_are_combined_and_compared_wherever_the_engine_is(client: Inference) -> None:
    info = await client.describe()
    first = await client.put_vector(vector_file(info, 1))
    second = await client.put_vector(vector_file(info, 1, seed=2))
    terms = (VectorTerm(first.id, 2.0), VectorTerm(second.id))
    *_, end = await collect(client, CombineVectors("combine", terms, "difference"))
    assert isinstance(end, Result), end
    made = load(await client.get_vector(end.payload["vector"]["id"]))
    wanted = 2 * first.at(1).values - second.at(1).values
    np.testing.assert_allclose(made.at(1).values, wanted, rtol=1e-5)
    gone = "0" * 64
    *_, end = await collect(client, CompareVectors("compare", (first.id, second.id), library=(made.id, gone)))
    assert isinstance(end, Result), end
    assert (end.payload["missing"], end.payload["nearest"][0][0][0][0]) == (1, 0)
    *_, end = await collect(client, CompareVectors("gone", (first.id, gone)))
    assert isinstance(end, Failed) and end.code == "vector_not_found"


def watching(info: ModelInfo, *watches: Watch) -> GenerationRequest:
    return replace(ask("watched", max_tokens=8), watches=watches)


def looking(info: ModelInfo, threshold: float | None, name: str = "look", **more: Any) -> Watch:
    probe = Probe(1, weights=np.linspace(-1, 1, info.d_model, dtype=np.float32))
    return Watch(name, probe, threshold, positions=Positions(prompt=False), **more)


@needs_redis
async def test_what_is_watched_is_told_alike_through_either_transport(clients: Clients) -> None:
    """A vector that only a watch names is where it is needed too."""
    assert clients.remote
    await auntil(lambda: is_ready(clients.inprocess), "the model is loaded")
    info = await clients.remote.describe()
    found = []
    for client in (clients.inprocess, clients.remote):
        vector = await client.put_vector(vector_file(info, layer=2, seed=5))
        steer = (Intervention(strength=2.0, vector_id=vector.id, layers=(2,)),)
        watches = looking(info, 0.0, action="steer", interventions=steer), looking(info, None, "other")
        events = await collect(client, watching(info, *watches))
        scored = [(e.start, e.values) for e in events if isinstance(e, Scored)]
        fired = [f for e in events if isinstance(e, Fired) for f in e.firings]
        end = events[-1]
        assert isinstance(end, Finished) and [e.seq for e in events] == list(range(len(events)))
        assert [start for start, _ in scored] == list(range(4, 11)) and end.receipt.fired == tuple(fired)
        assert end.receipt.fired_total == len(fired) == sum(a > 0 for _, ((a, _),) in scored) > 0
        found.append((tokens_of(events), scored, fired))
    assert found[0] == found[1]


async def test_a_constraint_is_kept_wherever_the_engine_is(client: Inference) -> None:
    await auntil(lambda: is_ready(client), "the model is loaded")
    plain = ask("bound", max_tokens=30)
    wanted = replace(plain, constraint=Constraint("regex", "[0-9]{3}-x"), sampling=SamplingParams(max_tokens=30))
    events = await collect(client, wanted)
    end = events[-1]
    assert isinstance(end, Finished) and end.reason == "stop", end
    assert re.fullmatch("[0-9]{3}-x", "".join(e.text for e in events if isinstance(e, Token | Finished)))
    assert end.receipt.constraint == AppliedConstraint("regex", True, len(tokens_of(events)))
    *_, end = await collect(client, replace(wanted, id="refused", constraint=Constraint("regex", r"(a)\1")))
    assert isinstance(end, Failed) and end.code == "bad_pattern"


async def test_a_watch_stops_a_row_wherever_the_engine_is(client: Inference) -> None:
    info = await client.describe()
    *_, end = await collect(client, watching(info, looking(info, -1e9, action="stop")))
    assert isinstance(end, Finished)
    assert (end.reason, end.usage.completion_tokens, end.receipt.fired[0].action) == ("watch", 0, "stop")


async def test_a_watch_that_cannot_be_kept_is_one_failed_event(client: Inference) -> None:
    info = await client.describe()
    (event,) = await collect(client, watching(info, looking(info, None, action="stop")))
    assert isinstance(event, Failed) and event.code == "no_threshold"


async def test_a_detector_is_built_and_read_wherever_the_engine_is(client: Inference) -> None:
    *progress, end = await collect(client, FitDetector("fit", PAIRS, layers=(1, 2)))
    assert isinstance(end, Result) and all(isinstance(event, Progress) for event in progress)
    vector = load(await client.get_vector(end.payload["vector"]["id"]))
    assert vector.recommended_layer == end.payload["probe"]["layer"]
    probe = Probe.from_wire(end.payload["probe"])
    *_, end = await collect(client, ReadProbes("read", (probe,), ("A calm reply",)))
    assert isinstance(end, Result)
    (text,) = end.payload["texts"]
    assert len(text["tokens"]) == len(text["scores"][0])


async def test_a_job_that_cannot_be_done_is_one_failed_event(client: Inference) -> None:
    *_, end = await collect(client, CreateVector("none", ()))
    assert isinstance(end, Failed) and end.id == "none"


async def test_describe_names_the_model_by_default_and_by_name(client: Inference) -> None:
    info = await client.describe()
    assert (info.state, info.id, info.n_layers) == ("ready", "tiny-llama", 4)
    assert (await client.describe("tiny-llama")).id == "tiny-llama"
    unknown = await client.describe("gpt-5")
    assert (unknown.state, unknown.id) == ("failed", "gpt-5") and "tiny-llama" in unknown.problem


async def test_models_and_workers_are_listed(client: Inference) -> None:
    assert [m.id for m in await client.models()] == ["tiny-llama"]
    (worker,) = await client.workers()
    assert worker.state == "ready" and worker.model and worker.model.id == "tiny-llama"
    assert worker.pid > 0 and worker.heartbeat_age < 5 and worker.memory_bytes > 2**20


async def test_a_drained_worker_finishes_refuses_and_resumes(client: Inference) -> None:
    (worker,) = await client.workers()
    run = Following(client, long("drained", max_tokens=400))
    await run.tokens(1)
    await client.control(worker.id, "drain")

    async def is_in(state: str) -> bool:
        return (await client.workers())[0].state == state

    await auntil(lambda: is_in("draining"), "the worker drains")
    described = await client.describe()
    assert (described.state, described.id) == ("failed", "tiny-llama") and "Try again" in described.problem
    (event,) = await collect(client, ask("late"))
    assert isinstance(event, Failed) and event.code == "draining" and event.retry_after
    assert isinstance(await run.end(), Finished)
    await client.control(worker.id, "resume")
    await auntil(lambda: is_in("ready"), "the worker is back")
    assert isinstance((await collect(client, ask("back")))[-1], Finished)


async def test_a_model_is_unloaded_and_loaded_while_what_runs_finishes(client: Inference, clients: Clients) -> None:
    (worker,) = await client.workers()
    run = Following(client, long("unloaded", max_tokens=200))
    await run.tokens(1)
    await client.control(worker.id, "unload")
    assert isinstance(await run.end(), Finished)

    async def is_empty() -> bool:
        return (await client.workers())[0].state == "empty"

    await auntil(is_empty, "the model is gone")
    assert await client.models() == ()
    (event,) = await collect(client, ask("nothing"))
    assert isinstance(event, Failed) and event.code == "no_model"
    assert (await client.describe()).state == "failed"
    await client.control(worker.id, "load", clients.model)
    await auntil(lambda: is_ready(client), "the model is back")
    assert isinstance((await collect(client, ask("something")))[-1], Finished)


async def test_an_order_to_nobody_or_for_nothing_is_refused(client: Inference) -> None:
    (worker,) = await client.workers()
    for id, command, model, code in (
        ("nobody", "drain", "", "worker_not_found"),
        (worker.id, "explode", "", "bad_command"),
        (worker.id, "load", "", "no_model_named"),
    ):
        with pytest.raises(InferenceError) as refusal:
            await client.control(id, command, model)  # type: ignore[arg-type]
        assert refusal.value.code == code


async def test_fifty_requests_at_once_all_end(client: Inference) -> None:
    runs = await asyncio.gather(*(collect(client, ask(f"many{i}", max_tokens=5, seed=i)) for i in range(50)))
    for i, events in enumerate(runs):
        assert [(e.id, e.seq) for e in events] == [(f"many{i}", n) for n in range(7)]


@needs_redis
def test_a_web_process_of_the_remote_setup_never_loads_torch(clients: Clients, tmp_path: Path) -> None:
    code = """
import asyncio, pathlib, sys
from inference.client import connect
from inference.types import GenerationRequest, SamplingParams

async def main():
    client = connect(sys.argv[1], data_dir=pathlib.Path(sys.argv[2]))
    assert (await client.describe()).state == "ready"
    request = GenerationRequest("a", prompt="Hello", sampling=SamplingParams(max_tokens=3))
    kinds = [event.type async for event in client.generate(request)]
    await client.close()
    assert kinds[0] == "started" and kinds[-1] == "finished", kinds
    assert not {"torch", "transformers"} & sys.modules.keys()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, clients.url, str(tmp_path)], cwd=stack.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


async def test_an_optimisation_brings_every_vector_that_it_found(client: Inference) -> None:
    prompts = (Datapoint("The quick brown fox"), Datapoint("Tabby cats"))
    job = OptimiseVector("melbo", prompts, layer=1, method="melbo", count=3, steps=4)
    *progress, result = await collect(client, job)
    assert isinstance(result, Result), result
    assert any(isinstance(event, Progress) and event.facts.get("curve") for event in progress)
    ids = [vector["id"] for vector in result.payload["vectors"]]
    assert len(set(ids)) == 3
    assert "datas" not in result.payload
    for id in ids:
        assert load(await client.get_vector(id)).method == "melbo"


async def test_an_optimisation_can_be_asked_to_finish_with_the_best(client: Inference) -> None:
    job = OptimiseVector("endless", (Datapoint("Tabby cats", (" purr",)),), layer=1, steps=2000)
    following = Following(client, job)

    async def moving() -> bool:
        return any(isinstance(event, Progress) and event.facts.get("curve") for event in following.events)

    await auntil(moving, "the first step is done")
    await client.finish("endless")
    result = await following.end()
    assert isinstance(result, Result), result
    facts = result.payload["vector"]["provenance"]
    assert facts["seeds"][0]["steps"] < 2000
    assert facts["loss"]["best"] <= facts["loss"]["start"]
    await client.finish("endless")  # harmless


async def test_an_sae_that_appears_is_described_and_read_with_wherever_the_engine_is(
    client: Inference, clients: Clients
) -> None:
    folder = Path(clients.model).parent
    for data in (folder, folder / "inprocess"):
        if not (data / "saes" / "1-test").is_dir():
            saes.save("jumprelu", data / "saes" / "1-test")

    async def listed() -> bool:
        return "1-test" in {source.id for source in (await client.describe()).sources}

    await auntil(listed, "the SAE is listed")
    *progress, result = await collect(client, ReadFeatures("read", "1-test", text="Tabby cats purr", features=(3,)))
    assert isinstance(result, Result), result
    assert all(isinstance(event, Progress) for event in progress)
    assert len(result.payload["values"]["3"]) == len(result.payload["tokens"]) == len(result.payload["top"])
    failed = (await collect(client, ReadFeatures("none", "2-none", text="Tabby")))[-1]
    assert isinstance(failed, Failed)
    assert failed.code == "source_not_found"
