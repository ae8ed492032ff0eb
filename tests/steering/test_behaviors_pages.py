"""The pages of behaviors, lanes that watch for them, and the APIs, in front of a model that fires by rule."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from inference.types import FitDetector, ReadProbes
from steering.accounts.models import User
from steering.audit.models import AuditEntry
from steering.behaviors import library
from steering.behaviors.corrector import Corrector
from steering.behaviors.fitting import FitSettings, behavior_fit
from steering.behaviors.models import Alert, AlertRule, Behavior, BehaviorCount, FiredSample
from steering.datasets.models import Dataset
from steering.jobs.models import Job
from steering.playground.schema import Lane
from steering.presets import library as presets
from steering.presets.models import Preset
from tests.fake_inference import MODEL, FakeInference
from tests.steering.behaviors import a_fit, a_reading, keep_behavior
from tests.steering.endings import ended
from tests.steering.play import Socket, a_run
from tests.steering.rest import Program
from tests.steering.test_behaviors import pairs_of
from tests.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("fake_inference")]

HOSTILE = "<script>alert(1)</script>"
PAIRS = "\n".join(
    json.dumps({"prompt": f"Question {i}?", "positive": f"You fool {i}!", "negative": f"Gladly {i}."}) for i in range(9)
)


@pytest.fixture
def mine(person: User, browser_of: Any) -> Client:
    return browser_of(person)  # type: ignore[no-any-return]


@pytest.fixture
def theirs(stranger: User, browser_of: Any) -> Client:
    return browser_of(stranger)  # type: ignore[no-any-return]


def page(client: Client, name: str, *args: Any, **query: Any) -> str:
    response = client.get(reverse(name, args=args), query)
    assert response.status_code == 200, response.content
    return response.content.decode()


# ---- making one ----


def form(**more: Any) -> dict[str, Any]:
    given = {"how": "dataset", "name": "anger", "direction": "suppress", "on": "residual", "false_positive_rate": "5"}
    return given | {"action": "steer", "steer_with": "fitted", "chat": "on"} | more


def test_a_behavior_is_fitted_from_a_dataset(mine: Client, person: User, fake_inference: FakeInference) -> None:
    fake_inference.payloads[FitDetector.kind] = a_fit()
    assert "No behaviors of your own yet" in page(mine, "behaviors:list")
    answer = mine.post(reverse("behaviors:new"), form(dataset=pairs_of(person).pk, false_positive_rate="2.5"))
    job = Job.objects.get()
    assert answer["Location"] == reverse("behaviors:fitting", args=[job.pk])
    ended(job)
    (asked,) = fake_inference.jobs
    assert isinstance(asked, FitDetector) and asked.false_positive_rate == 0.025 and asked.chat
    assert mine.get(answer["Location"])["Location"] == Behavior.objects.get().get_absolute_url()


@pytest.mark.parametrize("how", ["type", "upload"])
def test_pairs_that_are_typed_or_uploaded_become_a_dataset(
    mine: Client, person: User, fake_inference: FakeInference, how: str
) -> None:
    fake_inference.payloads[FitDetector.kind] = a_fit()
    rows: dict[str, Any] = {"file": SimpleUploadedFile("pairs.jsonl", PAIRS.encode())}
    if how == "type":
        read = [json.loads(line) for line in PAIRS.splitlines()]
        rows = {name: [row[name] for row in read] for name in ("prompt", "positive", "negative")} | {"was": [""] * 9}
    answer = mine.post(reverse("behaviors:new"), form(how=how, **rows))
    assert answer.status_code == 302, answer.content
    ended(Job.objects.get())
    dataset = Dataset.objects.get(owner=person)
    assert dataset.name == "Pairs of anger" and len(dataset.pairs()) == 9
    assert Behavior.objects.get().dataset == dataset


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"name": "Anger!"}, "cannot name a behavior"),
        ({"dataset": ""}, "Choose the dataset with the pairs"),
        ({"false_positive_rate": "80"}, "in percent, goes from 0.1 to 50"),
        ({"on": "features"}, "Choose one"),
        ({"how": "type"}, "There are no pairs yet"),
        ({"how": "upload"}, "No file was chosen"),
        ({"steer_with": "features", "features": "calm"}, "does not name a feature"),
        ({"action": "regenerate", "reads_prompt": "on"}, "cannot be written again"),
        ({"layers": "99"}, "out of range"),
    ],
)
def test_what_cannot_be_fitted_is_said_on_the_page(
    mine: Client, person: User, fake_inference: FakeInference, wrong: dict[str, Any], sentence: str
) -> None:
    answer = mine.post(reverse("behaviors:new"), form(**{"dataset": pairs_of(person).pk} | wrong))
    assert sentence in answer.content.decode()
    assert fake_inference.jobs == [] and Dataset.objects.owned_by(person).count() == 1


def test_a_fit_that_failed_leads_back_to_its_settings(mine: Client, person: User) -> None:
    job = behavior_fit(owner=person, dataset=pairs_of(person), settings=FitSettings("anger", direction="encourage"))
    ended(job)
    Job.objects.update(state="failed", error_code="bad_pairs", error_message="Both sides are the same.")
    shown = page(mine, "behaviors:fitting", job.pk)
    assert "Both sides are the same." in shown and "direction=encourage" in shown


# ---- one behavior ----


def test_its_page_shows_how_well_it_tells(mine: Client, theirs: Client, person: User) -> None:
    behavior = keep_behavior(person, description=HOSTILE)
    shown = page(mine, "behaviors:detail", behavior.pk)
    assert HOSTILE not in shown and "&lt;script&gt;" in shown
    assert "0.940" in shown and "90 %" in shown and "70 to 97 %" in shown
    assert theirs.get(behavior.get_absolute_url()).status_code == 404
    library.share(behavior, True)
    assert "Save as version" not in page(theirs, "behaviors:detail", behavior.pk)


def test_a_threshold_makes_a_new_version(mine: Client, person: User) -> None:
    behavior = keep_behavior(person)
    shown = page(mine, "behaviors:version", behavior.pk, threshold="1.5")
    assert 'value="1.5"' in shown and 'value="1.1"' in shown
    kept = {"version": "1.1", "threshold": "1.5", "action": "steer", "steer_with": "kept", "strength": "-0.5"}
    answer = mine.post(reverse("behaviors:version", args=[behavior.pk]), kept)
    new = Behavior.objects.get(version="1.1")
    assert answer["Location"] == new.get_absolute_url()
    assert new.threshold == 1.5 and new.corrects.uses[0].strength == -0.5
    again = mine.post(reverse("behaviors:version", args=[behavior.pk]), kept)
    assert "a version never changes" in again.content.decode()


def test_sharing_and_deleting_are_on_record(mine: Client, person: User) -> None:
    behavior = keep_behavior(person)
    mine.post(reverse("behaviors:share", args=[behavior.pk]), {"shared": "1"})
    mine.post(reverse("behaviors:delete", args=[behavior.pk]))
    assert [entry.action for entry in AuditEntry.objects.order_by("at")] == ["behavior_shared", "behavior_deleted"]
    assert not Behavior.objects.exists()


def test_a_text_is_read_token_by_token(
    mine: Client, theirs: Client, person: User, fake_inference: FakeInference
) -> None:
    fake_inference.payloads[ReadProbes.kind] = a_reading()
    behavior = keep_behavior(person)
    begun = mine.post(reverse("behaviors:read", args=[behavior.pk]), {"text": "You <b>idiot</b>."}).json()
    ended(Job.objects.get())
    read = mine.get(begun["url"]).json()["read"]
    assert read["tokens"] == [["<s>", None], ["You ", -0.25], ["<b>idiot</b>", 1.25], [".", 0.5]]
    assert read["fired"] == 1  # above the threshold, which is 0.5, not at it
    assert theirs.get(begun["url"]).status_code == 404
    (asked,) = fake_inference.jobs
    assert isinstance(asked, ReadProbes) and asked.texts == ("You <b>idiot</b>.",)
    where, headers = reverse("behaviors:read", args=[behavior.pk]), {"Accept": "application/json"}
    empty = mine.post(where, {"text": " "}, headers=headers)
    assert empty.status_code == 400 and "Paste a text first" in empty.json()["error"]["message"]


def test_of_an_answer_only_its_own_tokens_are_shown(mine: Client, person: User, fake_inference: FakeInference) -> None:
    texts = ["<s>", "user: ", "Hi", "\n", "Go", " away", "</s>"]
    read = {"tokens": [[i, t] for i, t in enumerate(texts)], "scores": [[1.0] * 7], "left_out": [0, 6]}
    fake_inference.payloads[ReadProbes.kind] = {"texts": [read]}
    behavior = keep_behavior(person)
    asked = {"text": "Go away", "prompt": "Hi"}
    begun = mine.post(reverse("behaviors:read", args=[behavior.pk]), asked).json()
    ended(Job.objects.get())
    assert mine.get(begun["url"]).json()["read"]["tokens"] == [["Go", 1.0], [" away", 1.0]]


def test_monitoring_shows_figures_alerts_and_samples(mine: Client, theirs: Client, person: User) -> None:
    behavior = keep_behavior(person, shared=True)
    assert "No run was watched for it" in page(mine, "behaviors:monitoring", behavior.pk)
    today = timezone.now().date()
    BehaviorCount.objects.create(behavior=behavior, user=person, day=today, watched=40, fired=2, tokens=5)
    Alert.objects.create(behavior=behavior, day=today, percent=1, watched=40, fired=2)
    FiredSample.objects.create(behavior=behavior, text=HOSTILE, marks=[[0, 3, 1.5, "steer"]], expires_at=timezone.now())
    later = timezone.now() + timedelta(days=1)
    FiredSample.objects.create(behavior=behavior, text="a calm word", marks=[[2, 6, 1.5, "steer"]], expires_at=later)
    shown = page(mine, "behaviors:monitoring", behavior.pk)
    assert "5.0 % fired: 2 of 40 runs" in shown and "2 of 40 runs on" in shown
    assert ">calm</mark>" in shown and "alert(1)" not in shown  # what has expired is not shown any more
    assert "calm" not in page(theirs, "behaviors:monitoring", behavior.pk)
    csv = mine.get(reverse("behaviors:monitoring_csv", args=[behavior.pk])).content.decode().splitlines()
    assert len(csv) == 31 and csv[-1] == f"{today},40,2,5,0.0500"
    mine.post(reverse("behaviors:alerts_seen", args=[behavior.pk]))
    assert "Put away" not in page(mine, "behaviors:monitoring", behavior.pk)


def test_a_rule_and_samples_are_set_by_the_owner_alone(mine: Client, theirs: Client, person: User) -> None:
    behavior = keep_behavior(person, shared=True)
    where = reverse("behaviors:alert", args=[behavior.pk])
    assert "goes from 0 to 100" in mine.post(where, {"percent": "200", "runs": "5"}).content.decode()
    mine.post(where, {"percent": "2.5", "runs": "50", "email": "on"})
    rule = AlertRule.objects.get()
    assert (rule.percent, rule.runs, rule.email) == (2.5, 50, True)
    assert theirs.post(where, {"percent": "1", "runs": "1"}).status_code == 404
    samples = reverse("behaviors:samples", args=[behavior.pk])
    assert theirs.post(samples, {"keep": "1"}).status_code == 404
    mine.post(samples, {"keep": "1"})
    assert Behavior.objects.get().keep_samples
    mine.post(samples, {"keep": "0"})
    assert not Behavior.objects.get().keep_samples
    mine.post(where, {"remove": "1"})
    assert not AlertRule.objects.exists()


# ---- lanes ----


async def test_a_lane_watches_and_its_run_is_counted(person: User, fake_inference: FakeInference) -> None:
    behavior = await sync_to_async(keep_behavior)(person)
    fake_inference.fires = {"anger@1.0": (13, 15)}
    lanes = (Lane("A", "Base"), Lane("B", "Calm", behaviors=("anger",)))
    async with Socket(person) as socket:
        await socket.run(a_run(*lanes))
        events = await socket.events_to_end()
    fired = [event for event in events if event["t"] == "fired"]
    assert [(e["lane"], e["firings"][0]["position"]) for e in fired] == [("B", 13), ("B", 15)]
    watched = next(request for request in fake_inference.requests if request.watches)
    assert [watch.name for watch in watched.watches] == ["anger@1.0"]
    await sync_to_async(until)(lambda: BehaviorCount.objects.exists())
    count = await BehaviorCount.objects.aget()
    assert (count.watched, count.fired, count.tokens, count.behavior_id) == (1, 1, 2, behavior.pk)


async def test_a_lane_with_an_unknown_behavior_fails_alone(person: User) -> None:
    lanes = (Lane("A", "Base"), Lane("B", "Calm", behaviors=("angr",)))
    async with Socket(person) as socket:
        await socket.run(a_run(*lanes))
        events = await socket.events_to_end()
    ends = {event["lane"]: event for event in events if event["t"] in ("finished", "failed")}
    assert ends["A"]["state"] == "finished" and ends["B"]["error"]["code"] == "behavior_not_found"


def test_the_playground_opens_with_a_behavior(mine: Client, person: User) -> None:
    behavior = keep_behavior(person)
    shown = mine.get(reverse("playground:home"), {"behavior": str(behavior.pk)}).content.decode()
    assert "anger@1.0" in shown
    listed = mine.get(reverse("behaviors:library")).json()["behaviors"]
    assert [(b["name"], b["action"], b["usable"]) for b in listed] == [("anger@1.0", "steer", True)]


# ---- OpenAI's endpoints ----

BODIES = {
    "chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5},
    "completions": {"prompt": "Hi", "max_tokens": 5},
    "responses": {"input": "Hi", "max_output_tokens": 5},
}


def ask(program: Program, where: str, **more: Any) -> tuple[int, Any]:
    return program.post(f"/v1/{where}", {"model": MODEL, **BODIES[where], **more})


@pytest.mark.parametrize("where", BODIES)
def test_the_outcome_is_in_the_answer(person: User, fake_inference: FakeInference, where: str) -> None:
    keep_behavior(person)
    fake_inference.fires = {"anger@1.0": (13,)}
    status, body = ask(Program(person), where, behavior_names=["anger"])
    assert status == 200, body
    (watched,) = body["behaviors"]["watched"]
    assert watched == {"name": "anger@1.0", "action": "steer", "threshold": 0.5, "forced": False}
    (outcome,) = body["behaviors"]["outcomes"]
    assert outcome["fired"] == {"anger@1.0": 1} and outcome["firings"][0]["index"] == 1
    assert until(lambda: BehaviorCount.objects.first()).fired == 1


@pytest.mark.parametrize("where", BODIES)
def test_an_answer_that_a_watch_stopped_says_so(person: User, fake_inference: FakeInference, where: str) -> None:
    keep_behavior(person, corrector=Corrector(action="stop"))
    fake_inference.fires = {"anger@1.0": (14,)}
    _, body = ask(Program(person), where, behavior_names="anger")
    if where == "responses":
        assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
    else:
        assert body["choices"][0]["finish_reason"] == "content_filter"
    assert body["behaviors"]["outcomes"][0]["stopped_by"] == "anger@1.0"


def test_correction_can_be_left_off_or_forced(person: User, fake_inference: FakeInference) -> None:
    keep_behavior(person)
    program = Program(person)
    for more in ({"auto_correct": False}, {"force_steering": True}, {"force_steering": ["anger"]}):
        ask(program, "chat/completions", behavior_names=["anger"], **more)
    observed, forced, named = (request.watches[0] for request in fake_inference.requests)
    assert observed.action == "observe" and not observed.interventions
    assert forced.force and named.force and forced.interventions


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        ({"behavior_names": ["angr"]}, 404, "Did you mean anger?"),
        ({"behavior_names": [3]}, 400, "array of strings"),
        ({"auto_correct": True}, 400, "Name them in 'behavior_names'"),
        ({"force_steering": True}, 400, "Name them in 'behavior_names'"),
        ({"behavior_names": ["haste"], "force_steering": True}, 400, "does not steer"),
    ],
)
def test_half_a_wish_is_refused(
    person: User, fake_inference: FakeInference, more: dict[str, Any], status: int, said: str
) -> None:
    keep_behavior(person)
    keep_behavior(person, "haste", corrector=Corrector(action="stop"))
    answered, body = ask(Program(person), "chat/completions", **more)
    assert answered == status and said in body["error"]["message"]
    assert fake_inference.requests == []


def test_a_preset_watches_for_whoever_calls_it(person: User, stranger: User, fake_inference: FakeInference) -> None:
    behavior = keep_behavior(person)
    program = Program(person)
    made = {"name": "calm", "behaviors": ["anger"], "shared": True}
    status, body = program.post("presets/", made)
    assert status == 400 and "Share that first" in body["error"]["message"]
    library.share(behavior, True)
    status, body = program.post("presets/", made)
    assert status == 201 and body["behaviors"] == [behavior.full_name], body
    status, body = ask(Program(stranger), "chat/completions", model=body["model_name"])
    assert status == 200 and body["behaviors"]["watched"][0]["name"] == behavior.full_name
    assert fake_inference.requests[-1].watches[0].interventions
    presets.share(Preset.objects.get(), False)


# ---- REST ----


class TestRest:
    def test_a_behavior_is_fitted_found_and_changed(self, person: User, fake_inference: FakeInference) -> None:
        fake_inference.payloads[FitDetector.kind] = a_fit()
        program = Program(person)
        asked = {"dataset": str(pairs_of(person).pk), "name": "anger", "correction": {"strength": 0.7}}
        status, job = program.post("behaviors/fit/", asked, again="once")
        assert status == 202, job
        assert program.post("behaviors/fit/", asked, again="once")[1]["id"] == job["id"]
        ended(Job.objects.get(pk=job["id"]))
        id = program.get(f"jobs/{job['id']}/")[1]["behavior"]
        _, body = program.get(f"behaviors/{id}/")
        assert body["call_name"] == "anger@1.0" and body["correction"]["uses"][0]["strength"] == -0.7
        assert body["detector"]["at_threshold"]["recall"]["estimate"] == 0.9
        assert len(body["detector"]["curve"]) == 5
        _, body = program.patch(f"behaviors/{id}/", {"shared": True, "keep_samples": True, "description": "Fury."})
        assert body["shared"] and body["keep_samples"] and body["description"] == "Fury."
        status, body = program.post(f"behaviors/{id}/versions/", {"threshold": 1.5, "correction": {"action": "stop"}})
        assert status == 201 and body["version"] == "1.1" and body["correction"]["action"] == "stop"
        assert [each["version"] for each in program.get("behaviors/", name="anger")[1]["data"]] == ["1.1", "1.0"]
        assert program.delete(f"behaviors/{id}/")[0] == 204

    def test_scores_and_figures_are_read(self, person: User, fake_inference: FakeInference) -> None:
        fake_inference.payloads[ReadProbes.kind] = a_reading()
        behavior, program = keep_behavior(person), Program(person)
        _, job = program.post(f"behaviors/{behavior.pk}/read/", {"text": "You idiot."})
        ended(Job.objects.get(pk=job["id"]))
        _, read = program.get(f"behaviors/{behavior.pk}/read/{job['id']}/")
        assert [token["fires"] for token in read["tokens"]] == [False, False, True, False]
        assert program.put(f"behaviors/{behavior.pk}/alert/", {"percent": 5, "runs": 10})[0] == 200
        ask(program, "chat/completions", behavior_names=["anger"])
        until(lambda: BehaviorCount.objects.exists())
        _, seen = program.get(f"behaviors/{behavior.pk}/monitoring/", days=2)
        assert seen["total"] == {"watched": 1, "fired": 0, "tokens": 0, "rate": 0.0}
        assert seen["keys"][0]["key"] == program.key.name and seen["rule"]["percent"] == 5

    def test_what_is_not_known_is_refused_by_name(self, person: User) -> None:
        program = Program(person)
        status, body = program.post("behaviors/fit/", {"dataset": str(pairs_of(person).pk), "name": "anger", "on": "x"})
        assert status == 400 and "on" in body["error"]["fields"]
