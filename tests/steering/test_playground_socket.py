from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from channels.db import database_sync_to_async
from django.contrib.auth.models import AnonymousUser

from inference import arrivals
from inference.types import FeatureRef
from steering import gateway
from steering.accounts.models import User
from steering.playground import live, runner
from steering.playground.messages import RunMessage
from steering.playground.models import LaneOutput, Run
from steering.playground.recovery import runs_recover
from steering.playground.runner import log_of
from steering.playground.schema import Lane, default_sampling
from steering.vectors.uses import VectorUse
from tests.fake_inference import TEXT, FakeInference
from tests.steering.features import SOURCE, a_source
from tests.steering.play import BreakingInference, Socket, a_run, keep_vector, steered, text_of
from tests.steering.vector_files import MODEL
from tests.waiting import auntil

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def fake(fake_inference: FakeInference) -> Iterator[FakeInference]:
    yield fake_inference
    gateway.call(until_quiet(), timeout=20)


async def until_quiet() -> None:
    from steering.playground.runner import _live

    for run in list(_live.values()):
        await run.stop(None)
    while _live:
        await asyncio.sleep(0.01)


in_db = database_sync_to_async


def get_run(pk: str) -> Run:
    return Run.objects.get(pk=pk)


def outputs(pk: str) -> dict[str, LaneOutput]:
    return {output.key: output for output in LaneOutput.objects.filter(run=pk)}


# ---- running ----


async def test_every_lane_streams_and_the_run_is_saved_with_its_settings(person: User) -> None:
    settings = a_run()
    async with Socket(person) as socket:
        accepted = await socket.run(settings)
        events = await socket.events_to_end()
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert text_of(events, "A").split() == text_of(events, "B").split() == TEXT.split()
    saved, lanes = await in_db(get_run)(accepted["run"]), await in_db(outputs)(accepted["run"])
    assert (saved.state, saved.title, saved.parsed) == ("finished", "Hello there", settings)
    assert lanes["A"].text.split() == TEXT.split()
    assert (lanes["A"].finish_reason, lanes["A"].receipt["seed"], lanes["A"].usage["prompt_tokens"]) == ("stop", 7, 12)


async def test_who_leaves_while_a_run_begins_leaves_one_that_is_carried(
    person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, gone, create = threading.Event(), threading.Event(), runner._create

    def slowly(*args: Any) -> Any:
        created = create(*args)
        made.set()
        gone.wait(10)
        return created

    monkeypatch.setattr(runner, "_create", slowly)
    message = RunMessage(idem=str(uuid.uuid4()), settings=a_run().to_wire())
    starting = gateway.submit(runner.run_start(person, message))
    await asyncio.to_thread(made.wait, 10)
    starting.cancel()
    gone.set()

    async def finished() -> bool:
        return [run.state async for run in Run.objects.all()] == ["finished"]

    await auntil(finished, "the run is carried to its end")


async def test_a_run_is_announced_to_the_engine_until_it_is_admitted(
    person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced, create = [], runner._create

    def noted(*args: Any) -> Any:
        announced.append(arrivals.expected())
        return create(*args)

    monkeypatch.setattr(runner, "_create", noted)
    async with Socket(person) as socket:
        await socket.run(a_run())
    assert (announced, arrivals.expected()) == ([1], 0)


async def test_a_saved_run_replays_as_it_was_seen(person: User) -> None:
    async with Socket(person) as socket:
        accepted = await socket.run(a_run())
        seen = await socket.events_to_end()
        await socket.say({"t": "subscribe", "run": accepted["run"]})
        assert await socket.events_to_end() == seen
        await socket.say({"t": "subscribe", "run": accepted["run"], "after": 30})
        assert await socket.events_to_end() == seen[31:]


async def test_a_run_with_watches_shows_every_trace_once_and_replays_it(person: User, fake: FakeInference) -> None:
    fake.sources = (a_source(),)
    settings = a_run(watched=(FeatureRef(SOURCE, 3), FeatureRef(SOURCE, 5)))
    async with Socket(person) as socket:
        accepted = await socket.run(settings)
        seen = await socket.events_to_end()
        await socket.say({"t": "subscribe", "run": accepted["run"]})
        assert await socket.events_to_end() == seen
    assert [event["seq"] for event in seen] == list(range(len(seen)))
    started = [event for event in seen if event["t"] == "started"]
    assert [event["watches"] for event in started] == [[f"{SOURCE}/3", f"{SOURCE}/5"]] * 2
    read = [
        event["start"] + i
        for event in seen
        if event["t"] == "scored" and event["lane"] == "A"
        for i in range(len(event["values"]))
    ]
    assert read == list(range(12 + len(TEXT.split()) - 1))
    saved = (await in_db(outputs)(accepted["run"]))["A"]
    assert [event["t"] for event in saved.watched] == ["scored"] * (len(TEXT.split()))
    assert saved.watched[0]["values"][0] == [None, None]


async def test_a_lane_that_stays_keeps_its_traces_in_the_next_version(person: User, fake: FakeInference) -> None:
    fake.sources = (a_source(),)
    settings = a_run(watched=(FeatureRef(SOURCE, 3),))
    async with Socket(person) as socket:
        first = await socket.run(settings)
        seen = await socket.events_to_end()
        again = await socket.run(settings, version_of=first["run"], lanes=["B"])
        later = await socket.events_to_end()
    of_a = [{**event, "seq": 0} for event in seen if event.get("lane") == "A"]
    assert [{**event, "seq": 0} for event in later if event.get("lane") == "A"] == of_a
    assert (await in_db(outputs)(again["run"]))["A"].watched


@pytest.mark.parametrize(
    ("ref", "code"), [(FeatureRef("9-none", 0), "source_not_found"), (FeatureRef("2-tiny", 64), "feature_out_of_range")]
)
async def test_a_feature_that_is_not_there_fails_the_lane_with_a_sentence(
    person: User, fake: FakeInference, ref: FeatureRef, code: str
) -> None:
    fake.sources = (a_source(),)
    async with Socket(person) as socket:
        await socket.run(a_run(watched=(ref,)))
        events = await socket.events_to_end()
    failed = [event for event in events if event["t"] == "failed"]
    assert [event["error"]["code"] for event in failed] == [code] * 2


async def test_a_feature_in_a_lane_reaches_the_model_at_its_source(person: User, fake: FakeInference) -> None:
    fake.sources = (a_source(indexed=True),)
    use = VectorUse(feature=FeatureRef(SOURCE, 7), operation="clamp", strength=0.5, unit="max")
    async with Socket(person) as socket:
        await socket.run(a_run(Lane("A", "Base"), Lane("C", "Steered", "1", interventions=(use,))))
        await socket.events_to_end()
    wanted = next(r for r in fake.requests if r.interventions).interventions[0]
    assert (wanted.feature, wanted.operation, wanted.strength, wanted.unit) == (
        FeatureRef(SOURCE, 7),
        "clamp",
        0.5,
        "max",
    )
    assert wanted.layers == () and wanted.vector_id is None


@pytest.mark.parametrize(
    ("use", "code"),
    [
        (VectorUse(feature=FeatureRef("2-tiny", 1), operation="rotate"), "feature_operation"),
        (VectorUse(feature=FeatureRef("2-tiny", 1), operation="clamp", unit="relative"), "feature_unit"),
        (VectorUse(feature=FeatureRef("2-tiny", 1), vector=str(uuid.uuid4())), "two_things"),
        (VectorUse(feature=FeatureRef("2-tiny", 1), layer=2), "feature_layer"),
        (VectorUse(feature=FeatureRef("2-tiny", -1)), "feature_out_of_range"),
        (VectorUse(), "bad_id"),
    ],
)
async def test_what_a_feature_cannot_do_is_refused_at_once(person: User, use: VectorUse, code: str) -> None:
    settings = a_run(Lane("A", "Base", interventions=(use,)))
    async with Socket(person) as socket:
        await socket.say({"t": "run", "idem": str(uuid.uuid4()), "settings": settings.to_wire()})
        assert (await socket.hear("error"))["code"] == code


async def test_pressing_run_twice_with_one_idem_runs_once(person: User, fake: FakeInference) -> None:
    message = {"t": "run", "idem": str(uuid.uuid4()), "settings": a_run().to_wire()}
    async with Socket(person) as one, Socket(person) as other:
        await asyncio.gather(one.say(message), other.say(message))
        first, second = await one.hear("accepted"), await other.hear("accepted")
        assert first["run"] == second["run"]
        assert await one.events_to_end() == await other.events_to_end()
    assert len(fake.requests) == 2  # one for each lane


async def test_a_missing_seed_is_drawn_and_saved(person: User) -> None:
    settings = a_run().to_wire()
    settings["sampling"]["seed"] = None
    async with Socket(person) as socket:
        await socket.say({"t": "run", "idem": str(uuid.uuid4()), "settings": settings})
        accepted = await socket.hear("accepted")
        events = await socket.events_to_end()
    started = [event["seed"] for event in events if event["t"] == "started"]
    assert started == [accepted["seed"]] * 2
    assert (await in_db(get_run)(accepted["run"])).parsed.sampling.seed == accepted["seed"]


async def test_without_the_lock_every_lane_has_its_own_seed(person: User) -> None:
    async with Socket(person) as socket:
        await socket.run(a_run(seed_lock=False))
        events = await socket.events_to_end()
    assert [event["seed"] for event in events if event["t"] == "started"] == [7, 8]


async def test_a_vector_reaches_the_model_by_its_content(person: User, fake: FakeInference) -> None:
    vector = await in_db(keep_vector)(person)
    async with Socket(person) as socket:
        await socket.run(a_run(Lane("A", "Base"), steered(vector)))
        events = await socket.events_to_end()
    wanted = next(r for r in fake.requests if r.interventions).interventions[0]
    assert (wanted.vector_id, wanted.layers, wanted.strength) == (vector.content_id, (2,), 0.3)
    assert text_of(events, "C").split() == TEXT.upper().split()


async def test_a_chip_that_is_off_does_nothing(person: User, fake: FakeInference) -> None:
    vector = await in_db(keep_vector)(person)
    async with Socket(person) as socket:
        await socket.run(a_run(steered(vector, on=False)))
        await socket.events_to_end()
    assert fake.requests[0].interventions == ()


async def test_a_completion_is_the_raw_text(person: User, fake: FakeInference) -> None:
    async with Socket(person) as socket:
        await socket.run(a_run(Lane("A", "Base"), mode="completion", text="Once upon a time"))
        await socket.events_to_end()
    assert (fake.requests[0].prompt, fake.requests[0].messages) == ("Once upon a time", None)


# ---- conversations and versions ----


async def test_a_follow_up_continues_each_lanes_own_answers(person: User, fake: FakeInference) -> None:
    vector = await in_db(keep_vector)(person)
    lanes = (Lane("A", "Base"), Lane("B", "Prompted", "prompt", system_prompt="Be calm."), steered(vector))
    async with Socket(person) as socket:
        first = await socket.run(a_run(*lanes))
        await socket.events_to_end()
        await socket.run(a_run(*lanes, text="And then?"), parent=first["run"])
        await socket.events_to_end()
    by_lane = {request.id[-1]: request.messages for request in fake.requests[3:]}
    assert [m.content for m in by_lane["A"]] == ["Hello there", TEXT + " ", "And then?"]
    assert [m.role for m in by_lane["B"]] == ["system", "user", "assistant", "user"]
    assert by_lane["C"][1].content == TEXT.upper() + " "


async def test_a_copied_lane_continues_the_answers_of_its_original(person: User, fake: FakeInference) -> None:
    vector = await in_db(keep_vector)(person)
    async with Socket(person) as socket:
        first = await socket.run(a_run(Lane("A", "Base"), steered(vector)))
        await socket.events_to_end()
        await socket.run(a_run(Lane("D", "Copy", "2", copy_of="C"), Lane("E", "New")), parent=first["run"])
        await socket.events_to_end()
    by_lane = {request.id[-1]: request.messages[1].content for request in fake.requests[2:]}
    assert by_lane == {"D": TEXT.upper() + " ", "E": TEXT + " "}


async def test_regenerating_makes_another_version_of_the_same_turn(person: User) -> None:
    async with Socket(person) as socket:
        first = await socket.run(a_run())
        await socket.events_to_end()
        again = await socket.run(a_run(), version_of=first["run"])
        await socket.events_to_end()
    assert again["versions"] == [first["run"], again["run"]]


async def test_one_lane_runs_again_and_the_others_keep_their_answers(person: User, fake: FakeInference) -> None:
    async with Socket(person) as socket:
        first = await socket.run(a_run())
        seen = await socket.events_to_end()
        again = await socket.run(a_run(), version_of=first["run"], lanes=["B"])
        events = await socket.events_to_end()
    assert len(fake.requests) == 3
    assert [e["seq"] for e in events] == list(range(len(events)))
    assert text_of(events, "A") == text_of(seen, "A")
    assert (await in_db(outputs)(again["run"]))["A"].state == "finished"


# ---- stopping ----


STOPPED = [(None, {"A": "cancelled", "B": "cancelled"}), ("B", {"A": "finished", "B": "cancelled"})]


@pytest.mark.parametrize(("lane", "states"), STOPPED)
async def test_stop_keeps_what_was_written(person: User, lane: str | None, states: dict[str, str]) -> None:
    async with Socket(person) as socket:
        accepted = await socket.run(a_run())
        await socket.events_until(lambda event: event["t"] == "token" and event["seq"] > 8)
        await socket.say({"t": "stop", "run": accepted["run"], "lane": lane})
        await socket.events_to_end()
    lanes = await in_db(outputs)(accepted["run"])
    assert {key: output.state for key, output in lanes.items()} == states
    assert 0 < len(lanes["B"].text.split()) < len(TEXT.split())
    assert (await in_db(get_run)(accepted["run"])).state == "cancelled"


async def test_a_model_that_ignores_a_stop_is_left(person: User, fake: FakeInference, monkeypatch: Any) -> None:
    async def deaf(id: str) -> None: ...

    monkeypatch.setattr(live, "STOP_SECONDS", 0.05)
    monkeypatch.setattr(fake, "cancel", deaf)
    fake.delay = 0.2
    async with Socket(person) as socket:
        accepted = await socket.run(a_run())
        await socket.say({"t": "stop", "run": accepted["run"]})
        events = await socket.events_to_end()
    assert [event["state"] for event in events if event["t"] == "finished"] == ["cancelled", "cancelled"]


async def test_stopping_a_run_that_has_ended_is_harmless(person: User) -> None:
    async with Socket(person) as socket:
        accepted = await socket.run(a_run())
        await socket.events_to_end()
        await socket.say({"t": "stop", "run": accepted["run"]})
        assert await socket.silent()


# ---- lines that break ----


async def test_a_run_goes_on_without_anyone_watching(person: User) -> None:
    async with Socket(person) as socket:
        accepted = await socket.run(a_run())
    async with Socket(person) as socket:
        await socket.say({"t": "subscribe", "run": accepted["run"]})
        events = await socket.events_to_end()
    assert text_of(events, "A").split() == TEXT.split()


async def test_a_hundred_disconnects_show_every_event_exactly_once(person: User, fake: FakeInference) -> None:
    fake.delay = 0.004
    chance = random.Random(4)
    runs: list[str] = []
    for _ in range(10):
        async with Socket(person) as socket:
            runs.append((await socket.run(a_run()))["run"])
        seen: list[dict[str, Any]] = []
        breaks = 0
        while not (seen and seen[-1]["t"] == "run_finished"):
            async with Socket(person) as socket:
                await socket.say({"t": "subscribe", "run": runs[-1], "after": seen[-1]["seq"] if seen else -1})
                far = len(seen) + chance.randint(1, 6) if breaks < 10 else 10**6
                breaks += 1
                while len(seen) < far and not (seen and seen[-1]["t"] == "run_finished"):
                    seen += (await socket.hear("events"))["events"][: far - len(seen)]
        assert breaks >= 8
        assert [event["seq"] for event in seen] == list(range(len(seen)))
        assert text_of(seen, "A").split() == text_of(seen, "B").split() == TEXT.split()


async def test_a_page_that_saw_more_than_was_saved_gets_everything_again(person: User) -> None:
    async with Socket(person) as socket:
        accepted = await socket.run(a_run())
        seen = await socket.events_to_end()
        await socket.say({"t": "subscribe", "run": accepted["run"], "after": 500})
        assert (await socket.hear())["t"] == "reset"
        assert await socket.events_to_end() == seen


async def test_a_socket_that_does_not_listen_holds_nobody_up(person: User) -> None:
    async with Socket(person) as deaf, Socket(person) as socket:
        accepted = await deaf.run(a_run())
        await socket.say({"t": "subscribe", "run": accepted["run"]})
        assert text_of(await socket.events_to_end(), "A").split() == TEXT.split()
        assert text_of(await deaf.events_to_end(), "A").split() == TEXT.split()


async def test_partial_text_is_saved_while_the_run_writes(person: User, fake: FakeInference, monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "CHECKPOINT_SECONDS", 0.05)
    fake.delay = 0.03
    async with Socket(person) as socket:
        accepted = await socket.run(a_run())
        await socket.events_until(lambda event: event["seq"] > 20)
        saved = (await in_db(outputs)(accepted["run"]))["A"]
        await socket.events_to_end()
    assert (saved.state, len(saved.text.split()) >= 3) == ("running", True)


async def test_a_restart_ends_what_was_running_and_keeps_its_text(person: User) -> None:
    run = await in_db(left_running)(person)
    assert await in_db(runs_recover)() == 1
    async with Socket(person) as socket:
        await socket.say({"t": "subscribe", "run": str(run.pk)})
        events = await socket.events_to_end()
    assert [event["t"] for event in events] == ["started", "token", "failed", "run_finished"]
    assert (events[2]["error"]["code"], events[3]["state"]) == ("interrupted", "interrupted")
    assert (await in_db(outputs)(str(run.pk)))["A"].text == "Half a"


def left_running(owner: User) -> Run:
    run = Run.objects.create(owner=owner, idem=uuid.uuid4(), title="Hi", input="Hi", settings=a_run().to_wire())
    token = {"seq": 1, "id": 5, "s": "Half a", "lp": None, "top": []}
    started = {"t": "started", "lane": "A", "seq": 0, "prompt_tokens": 3, "seed": 7}
    LaneOutput.objects.create(run=run, key="A", text="Half a", tokens=[token], started=started)
    return run


async def test_the_log_leaves_memory_when_the_run_has_ended(person: User) -> None:
    async with Socket(person) as socket:
        accepted = await socket.run(a_run())
        await socket.events_to_end()
        await asyncio.sleep(0.05)
    assert log_of(uuid.UUID(accepted["run"])) is None


# ---- previews ----


def preview(settings: Any, nonce: int, **more: Any) -> dict[str, Any]:
    return {"t": "preview", "nonce": nonce, "lane": "A", "settings": settings.to_wire(), "n": 6, **more}


async def preview_text(socket: Socket, nonce: int) -> str:
    text = ""
    while True:
        message = await socket.hear("preview")
        assert message["nonce"] == nonce
        if message.get("done"):
            return text
        text += message["s"]


async def test_a_preview_is_the_beginning_of_the_run_and_not_saved(person: User, fake: FakeInference) -> None:
    settings = a_run()
    async with Socket(person) as socket:
        await socket.say(preview(settings, 1))
        assert (await preview_text(socket, 1)).split() == TEXT.split()[:6]
    sampling = fake.requests[0].sampling
    assert (sampling.seed, sampling.temperature) == (settings.sampling.seed, settings.sampling.temperature)
    assert await Run.objects.acount() == 0


async def test_without_a_seed_a_preview_is_greedy(person: User, fake: FakeInference) -> None:
    sampling = dataclasses.replace(default_sampling(), seed=None)
    async with Socket(person) as socket:
        await socket.say(preview(a_run(sampling=sampling), 1))
        await preview_text(socket, 1)
    assert fake.requests[0].sampling.temperature == 0


async def test_the_newest_preview_ends_the_older_one(person: User, fake: FakeInference) -> None:
    fake.delay = 0.05
    async with Socket(person) as socket:
        await socket.say(preview(a_run(), 1))
        await socket.hear("preview")
        await socket.say(preview(a_run(), 2))
        while (await socket.hear("preview"))["nonce"] == 1:
            pass
        await asyncio.sleep(0.1)
        assert fake.rows == 1


async def test_closing_the_socket_ends_its_preview(person: User, fake: FakeInference) -> None:
    fake.delay = 0.1
    async with Socket(person) as socket:
        await socket.say(preview(a_run(), 1))
        await socket.hear("preview")
    await asyncio.sleep(0.2)
    assert fake.rows == 0


# ---- others, and trouble ----


async def test_others_runs_are_not_found(person: User, stranger: User) -> None:
    async with Socket(person) as socket:
        run = (await socket.run(a_run()))["run"]
        async with Socket(stranger) as spy:
            for message in (
                {"t": "subscribe", "run": run},
                {"t": "stop", "run": run},
                {"t": "run", "idem": str(uuid.uuid4()), "settings": a_run().to_wire(), "parent": run},
                {"t": "run", "idem": str(uuid.uuid4()), "settings": a_run().to_wire(), "version_of": run},
                preview(a_run(), 1, parent=run),
            ):
                await spy.say(message)
                answer = await spy.hear("error")
                assert answer["code"] == "run_not_found"
        events = await socket.events_to_end()
    assert events[-1]["state"] == "finished"


async def test_others_vectors_are_not_found_and_the_other_lanes_run(person: User, stranger: User) -> None:
    vector = await in_db(keep_vector)(stranger)
    async with Socket(person) as socket:
        await socket.run(a_run(Lane("A", "Base"), steered(vector)))
        events = await socket.events_to_end()
    failed = next(event for event in events if event["t"] == "failed")
    assert (failed["lane"], failed["error"]["code"]) == ("C", "vector_not_found")
    assert text_of(events, "A").split() == TEXT.split()
    assert events[-1]["state"] == "finished"


async def test_a_vector_of_another_model_is_refused_by_name(person: User) -> None:
    vector = await in_db(keep_vector)(person, model="gpt2")
    async with Socket(person) as socket:
        await socket.run(a_run(steered(vector)))
        events = await socket.events_to_end()
    error = next(event for event in events if event["t"] == "failed")["error"]
    assert error["code"] == "vector_model_mismatch"
    assert "gpt2" in error["message"]
    assert MODEL in error["message"]
    assert events[-1]["state"] == "failed"


async def test_a_lane_that_breaks_does_not_break_the_others(person: User) -> None:
    gateway.set_inference(BreakingInference(delay=0.001))
    vector = await in_db(keep_vector)(person)
    async with Socket(person) as socket:
        accepted = await socket.run(a_run(Lane("A", "Base"), steered(vector)))
        events = await socket.events_to_end()
    lanes = await in_db(outputs)(accepted["run"])
    assert (lanes["A"].state, lanes["C"].state, lanes["C"].error["code"]) == ("finished", "failed", "lane_broke")
    assert lanes["C"].text != ""
    assert "a bug" not in json.dumps(events)


async def test_who_is_not_signed_in_gets_no_socket() -> None:
    async with Socket(AnonymousUser()) as socket:
        assert not socket.connected


WRONG = [
    ("not json", "bad_json"),
    ("[1]", "bad_message"),
    ("[" * 5000, "bad_json"),
    ('{"t":"fly"}', "unknown_type"),
    ('{"t":["run"]}', "unknown_type"),
    ('{"t":"run"}', "invalid_field"),
    ('{"t":"subscribe","run":"7"}', "bad_id"),
    ('{"t":"subscribe","run":"7","after":"x"}', "invalid_field"),
    (json.dumps({"t": "stop", "run": str(uuid.uuid4()), "lane": 7}), "invalid_field"),
    ('{"t":"ping","extra":1}', "invalid_field"),
    (json.dumps({"t": "ping", "x": "y" * 70_000}), "too_large"),
]


@pytest.mark.parametrize(("text", "code"), WRONG, ids=[code + text[:12] for text, code in WRONG])
async def test_nonsense_is_refused_with_a_sentence_and_the_line_stays(person: User, text: str, code: str) -> None:
    async with Socket(person) as socket:
        await socket.say(text)
        answer = await socket.hear("error")
        assert answer["code"] == code
        assert answer["message"].endswith(".")
        await socket.say({"t": "ping"})
        await socket.hear("pong")


async def test_bytes_are_refused_with_a_sentence(person: User) -> None:
    async with Socket(person) as socket:
        await socket.say_bytes(b"\x00\x01")
        assert (await socket.hear("error"))["code"] == "not_text"


async def test_a_refused_run_names_its_idem_and_saves_nothing(person: User) -> None:
    async with Socket(person) as socket:
        idem = str(uuid.uuid4())
        await socket.say({"t": "run", "idem": idem, "settings": a_run(text="  ").to_wire()})
        answer = await socket.hear("error")
    assert (answer["code"], answer["idem"]) == ("empty_input", idem)
    assert await Run.objects.acount() == 0


async def test_one_person_has_a_limit_of_runs_at_once(person: User, monkeypatch: Any) -> None:
    monkeypatch.setattr("steering.playground.runner.MAX_RUNS_AT_ONCE", 1)
    async with Socket(person) as socket:
        await socket.run(a_run())
        await socket.say({"t": "run", "idem": str(uuid.uuid4()), "settings": a_run().to_wire()})
        assert (await socket.hear("error"))["code"] == "too_many_runs"
        await socket.events_to_end()
