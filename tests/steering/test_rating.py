from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.test import Client

from steering import gateway
from steering.accounts.models import User
from steering.presets import library as presets
from steering.presets.content import PresetContent
from steering.rating import rating, results, writing
from steering.rating.models import Answer, Item, Rater, Study
from steering.vectors.uses import VectorUse
from tests.fake_inference import FakeInference
from tests.guards.hostile import SCRIPTS
from tests.steering.endings import settled
from tests.steering.play import keep_vector
from tests.waiting import until

pytestmark = pytest.mark.django_db


def a_study(owner: User, pairs: int = 4, **fields: Any) -> Study:
    settings = {"about": "calm, layer 2, +0.3×", "interventions": [], "sampling": {"temperature": 0.7}, "chat": True}
    facts = {"name": "Calm", "question": "Which is calmer?", "model_id": "m", "state": "ready", "settings": settings}
    study = Study.objects.create(owner=owner, **{**facts, **fields})
    for n in range(pairs):
        Item.objects.create(study=study, position=n, prompt=f"P{n}", seed=n, base=f"base {n}", steered=f"other {n}")
    return study


def turned(rater: Rater, *left: bool) -> Rater:
    """With the sides set by the test, and the order as written."""
    rater.order, rater.steered_left = list(range(len(left))), list(left)
    rater.save()
    return rater


def press(browser: Client, study: Study, *keys: str) -> None:
    for key in keys:
        place = re.search(r'name="place" value="(\d+)"', browser.get(url(study, "rate/")).content.decode())
        browser.post(url(study, "rate/"), {"act": key, **({"place": place[1]} if place else {})})


def url(study: Study, rest: str = "") -> str:
    return f"/rating/{study.pk}/{rest}"


def body(response: Any) -> str:
    """What is the page's own: not the frame, which tells how the model does, nor what is new in each answer."""
    text = response.content.decode().partition("<main")[2] or response.content.decode()
    return re.sub(r'name="csrfmiddlewaretoken" value="[^"]*"|req_[0-9a-f]+', "", text)


# ---- blindness ----


def test_nothing_but_the_texts_themselves_depends_on_the_sides_before_the_end(person: User, browser_of: Any) -> None:
    study, browser = a_study(person), browser_of(person)
    rater = rating.rater_of(study, person)
    seen = []
    for left in (True, False):
        turned(rater, left, left, left, left)
        pages = ["", "rate/", "answers.csv", "answers.jsonl", "status/"]
        seen.append([body(browser.get(url(study, page))) for page in pages])
    here, there = seen
    assert here[1] != there[1]
    assert here[1] == there[1].replace("base 0", "§").replace("other 0", "base 0").replace("§", "other 0")
    assert here[:1] + here[2:] == there[:1] + there[2:]
    for page in here[:1] + here[2:]:
        assert "base 0" not in page and "other 0" not in page


def test_each_rater_gets_sides_and_order_of_their_own_half_of_them_left(person: User, stranger: User) -> None:
    study = a_study(person, pairs=40)
    a, b = rating.rater_of(study, person), rating.rater_of(study, stranger)
    for rater in (a, b):
        assert sorted(rater.order) == list(range(40)) and sum(rater.steered_left) == 20
    assert a.order != b.order and a.steered_left != b.steered_left  # by chance once in 10^20
    assert rating.rater_of(study, person).order == a.order


def test_results_and_files_wait_for_ones_own_end_whoever_else_has_ended(
    person: User, stranger: User, browser_of: Any
) -> None:
    study = a_study(person, shared=True)
    mine, theirs = browser_of(person), browser_of(stranger)
    press(theirs, study, "left", "left", "right", "tie", "reveal")
    assert theirs.get(url(study, "answers.csv")).status_code == 200
    press(mine, study, "left")
    assert mine.get(url(study, "answers.csv")).status_code == mine.get(url(study, "answers.jsonl")).status_code == 409
    assert mine.get(url(study)).context["results"] is None
    press(mine, study, "reveal")
    found = mine.get(url(study)).context["results"]
    assert len(found.by_rater) == 2 and found.unfinished == 0


def test_after_the_end_answers_stay_as_they_are(person: User, browser_of: Any) -> None:
    study, browser = a_study(person), browser_of(person)
    press(browser, study, "left", "reveal", "undo")
    browser.post(url(study, "rate/"), {"act": "right", "place": "1"})
    assert [a.side for a in Answer.objects.all()] == ["left"]


def test_nobody_reveals_before_having_rated_anything(person: User, browser_of: Any) -> None:
    study, browser = a_study(person), browser_of(person)
    browser.post(url(study, "rate/"), {"act": "reveal"})
    assert study.raters.get().revealed_at is None


# ---- rating ----


def test_a_pass_goes_on_where_it_stopped_and_can_be_taken_back(person: User, browser_of: Any) -> None:
    study, browser = a_study(person), browser_of(person)
    press(browser, study, "left", "right")
    again = browser_of(person)
    assert again.get(url(study, "rate/")).context["answered"] == 2
    press(again, study, "undo")
    assert [a.place for a in Answer.objects.all()] == [0]
    press(again, study, "tie", "left", "left")
    assert again.get(url(study, "rate/")).context["question"] is None
    assert [a.side for a in Answer.objects.all()] == ["left", "tie", "left", "left"]


def test_the_same_answer_sent_twice_counts_once_and_nonsense_not_at_all(person: User, browser_of: Any) -> None:
    study, browser = a_study(person), browser_of(person)
    for act, place in (("left", "0"), ("right", "0"), ("left", "9"), ("up", "1"), ("left", "x")):
        browser.post(url(study, "rate/"), {"act": act, "place": place})
    assert [(a.place, a.side) for a in Answer.objects.all()] == [(0, "left")]


def test_the_share_of_wins_is_counted_by_hand_with_wilsons_interval(person: User, browser_of: Any) -> None:
    study = a_study(person, pairs=6)
    Item.objects.filter(study=study, position=5).update(steered="base 5")  # the same text: shown to nobody
    rater = rating.rater_of(study, person)
    assert sorted(rater.order) == [0, 1, 2, 3, 4]
    turned(rater, True, False, True, False, True)
    press(browser_of(person), study, "left", "right", "left", "left", "tie", "reveal")
    found = results.results_of(study)
    assert (found.total.steered, found.total.base, found.total.ties, found.same) == (3, 1, 1, 1)
    z2, p, n = 1.959963984540054**2, 0.75, 4
    centre, half = (p + z2 / 8) / (1 + z2 / n), (z2**0.5) / (1 + z2 / n) * (p * (1 - p) / n + z2 / 64) ** 0.5
    rate = found.total.rate
    assert rate and (rate.estimate, rate.low, rate.high) == pytest.approx((p, centre - half, centre + half))
    assert found.total.verdict == "not told apart from chance"
    assert [row["preferred"] for row in results.rows(study)] == ["steered", "steered", "steered", "base", "tie"]


def test_two_raters_are_counted_apart_and_their_agreement_is_said(
    person: User, stranger: User, browser_of: Any
) -> None:
    study = a_study(person, pairs=2, shared=True)
    turned(rating.rater_of(study, person), True, True)
    turned(rating.rater_of(study, stranger), False, False)
    press(browser_of(person), study, "left", "left", "reveal")
    press(browser_of(stranger), study, "right", "left", "reveal")
    found = results.results_of(study)
    assert [(t.steered, t.base) for t in found.by_rater] == [(2, 0), (1, 1)]
    assert found.agreement == 0.5


def test_texts_that_would_be_code_are_text(person: User, browser_of: Any) -> None:
    study = a_study(person, pairs=1)
    nasty = "".join(SCRIPTS.values())
    Item.objects.filter(study=study).update(prompt=nasty, base=f"=1+1 {nasty}", steered=nasty)
    browser = browser_of(person)
    assert "<script>window" not in browser.get(url(study, "rate/")).content.decode()
    press(browser, study, "left", "reveal")
    assert "<script>window" not in browser.get(url(study)).content.decode()
    assert "\"'=1+1" in browser.get(url(study, "answers.csv")).content.decode()
    row = json.loads(browser.get(url(study, "answers.jsonl")).content)
    assert row["prompt"] == nasty and row["base"].startswith("=1+1")


# ---- who ----


def test_a_study_is_its_owners_until_it_is_shared(person: User, stranger: User, browser_of: Any) -> None:
    study, theirs = a_study(person), browser_of(stranger)
    assert {theirs.get(url(study, page)).status_code for page in ("", "rate/", "answers.csv", "status/")} == {404}
    browser_of(person).post(url(study, "share/"), {"shared": "1"})
    assert theirs.get(url(study, "rate/")).status_code == theirs.get(url(study)).status_code == 200
    for page in ("share/", "delete/", "resume/"):
        assert theirs.post(url(study, page), {"shared": "0"}).status_code == 404
    assert theirs.get(url(study, "status/")).status_code == 404
    browser_of(person).post(url(study, "share/"), {"shared": "0"})
    assert theirs.get(url(study, "rate/")).status_code == 404


def test_what_somebody_else_shares_is_in_no_list_before_one_has_rated_it(
    person: User, stranger: User, browser_of: Any
) -> None:
    study, theirs = a_study(person, name="Secretly shared", shared=True), browser_of(stranger)
    assert "Secretly shared" not in theirs.get("/rating/").content.decode()
    theirs.get(url(study, "rate/"))
    assert "Secretly shared" in theirs.get("/rating/").content.decode()


# ---- writing ----


def form(**changes: Any) -> dict[str, Any]:
    return {"source": "vector", "prompts": "How are you?\n\nTell me more.\nHow are you?", "max_tokens": "5", **changes}


def written(study: Study) -> Study:
    until(lambda: Study.objects.get(pk=study.pk).state != Study.State.WRITING)
    study.refresh_from_db()
    return study


@pytest.mark.django_db(transaction=True)
def test_both_sides_of_a_pair_are_written_with_one_seed_and_only_one_is_steered(
    person: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    gateway.call(fake_inference.describe())
    vector = keep_vector(person)
    answer = browser_of(person).post("/rating/new/", form(vector=vector.pk, strength="0.5", seed="7"))
    study = written(Study.objects.get())
    assert (answer.status_code, answer["Location"], study.state) == (302, url(study), "ready")
    assert [(i.prompt, i.base, i.steered) for i in study.items.all()] == [
        (prompt, "the quick brown fox jumps ", "THE QUICK BROWN FOX JUMPS ")
        for prompt in ("How are you?", "Tell me more.")
    ]
    asked = sorted((r.sampling.seed, len(r.interventions)) for r in fake_inference.requests)
    assert asked == [(7, 0), (7, 1), (8, 0), (8, 1)]
    steered = next(r for r in fake_inference.requests if r.interventions).interventions[0]
    assert (steered.layers, steered.strength, steered.vector_id) == ((2,), 0.5, vector.content_id)
    entry = settled()
    assert (entry.state, entry.completion_tokens, entry.source) == ("settled", 20, "rating")


@pytest.mark.django_db(transaction=True)
def test_a_study_of_a_preset_gives_both_sides_its_system_prompt(
    person: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    use = VectorUse(vector=str(keep_vector(person).pk), strength=0.4)
    content = PresetContent(uses=(use,), system_prompt="Be brief.")
    model = gateway.call(fake_inference.describe())
    preset = presets.save(person, name="calm", version="1.0", model=model, content=content)
    browser_of(person).post("/rating/new/", form(source="preset", preset=preset.pk))
    assert written(Study.objects.get()).state == "ready"
    assert {r.messages[0].content for r in fake_inference.requests if r.messages} == {"Be brief."}
    assert sum(bool(r.interventions) for r in fake_inference.requests) == 2


@pytest.mark.django_db(transaction=True)
def test_a_study_that_lost_its_process_goes_on_and_writes_nothing_twice(
    person: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    browser_of(person).post("/rating/new/", form(vector=keep_vector(person).pk))
    study = written(Study.objects.get())
    Item.objects.filter(study=study, position=1).update(steered=None)
    Study.objects.filter(pk=study.pk).update(state="writing", heartbeat_at=None)
    before = len(fake_inference.requests)
    browser_of(person).get(url(study))
    assert written(study).state == "ready" and len(fake_inference.requests) == before + 2
    assert writing.study_write(study) is False


@pytest.mark.django_db(transaction=True)
def test_a_failure_is_said_and_gone_on_from(person: User, browser_of: Any, fake_inference: FakeInference) -> None:
    browser, vector = browser_of(person), keep_vector(person)
    gateway.call(fake_inference.describe())
    browser.post("/rating/new/", form(vector=vector.pk))
    study = written(Study.objects.get())
    study.items.update(steered=None)
    Study.objects.filter(pk=study.pk).update(state="writing", heartbeat_at=None)
    loaded, fake_inference.loaded = fake_inference.loaded, {"fake": ""}
    browser.get(url(study))
    assert written(study).state == "failed"
    assert study.error_message in browser.get(url(study)).content.decode().replace("&#x27;", "'")
    fake_inference.loaded = loaded
    browser.post(url(study, "resume/"))
    assert written(study).state == "ready"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": "One alone"}, "at least 2 prompts"),
        ({"vector": ""}, "Choose the vector"),
        ({"strength": "0"}, "steers nothing"),
        ({"layer": "9"}, "no direction at layer 9"),
        ({"max_tokens": "9999"}, "less than or equal to 400"),
        ({"source": "preset"}, "Choose the preset"),
    ],
)
def test_what_cannot_be_rated_is_refused_with_a_cure(
    person: User, browser_of: Any, fake_inference: FakeInference, changes: dict[str, str], said: str
) -> None:
    asked = form(vector=keep_vector(person).pk) | changes
    answer = browser_of(person).post("/rating/new/", asked)
    assert answer.status_code == 400 and said in answer.content.decode()
    assert not Study.objects.exists()


def test_a_strangers_vector_and_dataset_are_as_absent_as_none(
    person: User, stranger: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    answer = browser_of(person).post("/rating/new/", form(vector=keep_vector(stranger).pk))
    assert answer.status_code == 400 and "That vector is gone" in answer.content.decode()
