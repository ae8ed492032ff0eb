from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from inference.errors import InvalidRequest
from inference.naming import excerpt_of, label_of
from inference.types import FeatureRef, Message, ModelInfo
from steering.accounts.models import User
from steering.features import labels
from steering.features.models import FeatureLabel
from steering.features.texts import corpus_of, examples_of, talk_of
from steering.features.uses import watches_of
from steering.jobs.models import Job
from tests.fake_inference import MODEL, FakeInference
from tests.steering.endings import ended
from tests.steering.features import SOURCE, a_source, description, reading

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def fake(fake_inference: FakeInference) -> FakeInference:
    fake_inference.delay = 0.0
    fake_inference.sources = (a_source(indexed=True),)
    fake_inference.payloads = {
        "read_features": reading(),
        "describe_feature": description(3),
        "search_features": {
            "found": [{"index": 3, "mean": 2.0, "baseline": 0.5, "lift": 1.5, "max": 4.0, "token": " <b>fox</b>"}]
        },
        "index_corpus": {"tokens": 12, "texts": 2, "features": 3, "dead": 61},
    }
    return fake_inference


@pytest.fixture
def browser(browser_of: Any, person: User) -> Client:
    client: Client = browser_of(person)
    return client


def started(response: Any, kind: str) -> Job:
    assert response.status_code == 302, response.content.decode()[:2000]
    job = ended(Job.objects.get(kind=kind))
    assert job.state == "succeeded", job.error_message
    return job


# ---- texts ----


def test_a_talk_is_read_from_turns_or_from_json() -> None:
    turns = talk_of("System: Be calm.\nUser: Hi there\nsecond line\nAssistant: Hello: you")
    assert turns == (
        Message("system", "Be calm."),
        Message("user", "Hi there\nsecond line"),
        Message("assistant", "Hello: you"),
    )
    assert talk_of('[{"role": "user", "content": "Hi"}]') == (Message("user", "Hi"),)
    assert talk_of("just a question") == (Message("user", "just a question"),)


@pytest.mark.parametrize(
    "text",
    ["", "  \n", "[1, 2]", '[{"role": "wizard", "content": "x"}]', "Hi\nUser: later", "User:\nAssistant: x", "["],
)
def test_a_talk_that_is_none_is_refused_with_a_cure(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        talk_of(text)
    assert refused.value.message.endswith(".")


def test_examples_are_lines_or_blocks() -> None:
    assert examples_of("one\ntwo\n", "x") == ("one", "two")
    assert examples_of("one\nmore\n\ntwo", "x") == ("one\nmore", "two")


def test_an_empty_corpus_and_one_that_is_too_large_are_refused() -> None:
    for text, code in (("  \n\n ", "empty_corpus"), ("word " * 500_000, "corpus_too_large")):
        with pytest.raises(InvalidRequest) as refused:
            corpus_of(text, None)
        assert refused.value.code == code


# ---- pages ----


def test_without_an_autoencoder_the_page_says_how_to_get_one(browser: Client, fake: FakeInference) -> None:
    fake.sources = ()
    page = browser.get("/features/").content.decode()
    assert "No autoencoder for SmolLM2-135M-Instruct" in page
    assert "STEERBOARD_SAES" in page
    assert "No autoencoder" in browser.get("/features/search/").content.decode()


def test_a_source_with_a_problem_is_listed_with_it_and_cannot_be_chosen(browser: Client, fake: FakeInference) -> None:
    fake.sources = (a_source(problem="It was made for gpt2. Train one for this model."),)
    page = browser.get("/features/").content.decode()
    assert "It was made for gpt2" in page
    assert 'name="source"' not in page
    assert "It was made for gpt2" in browser.get(f"/features/{SOURCE}/").content.decode()


def test_a_text_is_read_and_shown_with_labels(browser: Client, person: User, fake: FakeInference) -> None:
    labels.label_set(person, MODEL, FeatureRef(SOURCE, 3), "foxes")
    response = browser.post("/features/read/", {"text": "the quick brown fox", "as": "text", "source": SOURCE})
    job = started(response, "read_features")
    assert response["Location"] == f"/features/readings/{job.pk}/"
    assert job.result_url == response["Location"]
    assert "data-more" in browser.get(response["Location"]).content.decode()
    data = browser.get(f"/features/readings/{job.pk}/data.json").json()
    assert data["tokens"][1] == [101, " quick"]
    assert data["labels"] == {"3": {"text": "foxes", "proposed": False, "mine": True, "by": ""}}


def test_a_chat_is_read_through_the_template(browser: Client, fake: FakeInference) -> None:
    started(browser.post("/features/read/", {"text": "User: Hi", "as": "chat", "source": SOURCE}), "read_features")
    asked = next(job for job in fake.jobs if job.kind == "read_features")
    assert asked.messages == (Message("user", "Hi"),)
    assert asked.text is None


def test_what_a_page_asks_further_is_asked_of_the_same_text(browser: Client, fake: FakeInference) -> None:
    job = started(browser.post("/features/read/", {"text": "a fox", "as": "text", "source": SOURCE}), "read_features")
    url = f"/features/readings/{job.pk}/more.json"
    found = browser.post(url, {"features": [3], "sort_by": [1]}, content_type="application/json").json()
    assert found["values"]["3"] == [1.0, 2.0, 3.0, 4.0]
    assert found["sorted"][0] == [5, 0.5, 1]
    again = fake.jobs[-1]
    assert (again.text, again.features, again.sort_by) == ("a fox", (3,), (1,))
    refused = browser.post(
        url, {"featuers": [3]}, content_type="application/json", headers={"Accept": "application/json"}
    )
    assert refused.status_code == 400
    assert refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"text": " ", "as": "text", "source": SOURCE}, "The text is empty."),
        ({"text": "x" * 40_001, "as": "text", "source": SOURCE}, "40,000 is the most"),
        ({"text": "Hi", "as": "text", "source": "9-none"}, "no autoencoder &#x27;9-none&#x27;"),
        ({"text": "[1]", "as": "chat", "source": SOURCE}, "not a list of messages"),
    ],
)
def test_what_cannot_be_read_comes_back_with_the_form(
    browser: Client, fake: FakeInference, form: dict[str, str], said: str
) -> None:
    page = browser.post("/features/read/", form)
    assert page.status_code in (400, 404)
    assert said in page.content.decode()
    assert 'name="text"' in page.content.decode()


def test_a_feature_says_what_it_is(browser: Client, fake: FakeInference) -> None:
    page = browser.get(f"/features/{SOURCE}/3/").content.decode()
    assert "Feature 3" in page and "?feature=2-tiny/3" in page
    facts = browser.get(f"/features/{SOURCE}/3/facts.json").json()
    assert facts["max_activation"] == 4.0
    asked = len(fake.jobs)
    browser.get(f"/features/{SOURCE}/3/facts.json")
    assert len(fake.jobs) == asked  # remembered


def test_an_index_out_of_range_gives_a_sentence_and_a_way_back(browser: Client, fake: FakeInference) -> None:
    page = browser.get(f"/features/{SOURCE}/64/")
    assert page.status_code == 404
    assert "has features 0 to 63" in page.content.decode()
    for asked in ({"index": "64"}, {"index": "many"}, {"index": ""}):
        gone = browser.get("/features/go/", {"source": SOURCE, **asked})
        assert gone.status_code == 404 and "No such feature" in gone.content.decode()
    assert browser.get("/features/go/", {"source": SOURCE, "index": "#7"})["Location"] == f"/features/{SOURCE}/7/"


def test_examples_find_features_and_their_texts_stay_text(browser: Client, fake: FakeInference) -> None:
    response = browser.post("/features/search/example/", {"texts": "a\nb", "against": "c", "source": SOURCE})
    started(response, "search_features")
    page = browser.get(response["Location"]).content.decode()
    assert "&lt;b&gt;fox&lt;/b&gt;" in page and "<b>fox</b>" not in page
    asked = next(job for job in fake.jobs if job.kind == "search_features")
    assert (asked.texts, asked.against) == (("a", "b"), ("c",))


def test_only_administrators_index_a_corpus(browser: Client, browser_of: Any, fake: FakeInference) -> None:
    form = {"from": "text", "text": "One text.\n\nAnother."}
    assert browser.post(f"/features/{SOURCE}/index/", form).status_code == 404
    admin = browser_of(User.objects.create_superuser("boss@example.org"))
    started(admin.post(f"/features/{SOURCE}/index/", form), "index_corpus")
    assert next(job for job in fake.jobs if job.kind == "index_corpus").texts == ("One text.", "Another.")
    refused = admin.post(f"/features/{SOURCE}/index/", {"from": "text", "text": " "})
    assert refused.status_code == 400 and "There is no text to read" in refused.content.decode()


# ---- labels ----


def test_a_label_is_ones_own_and_shown_to_others_where_it_is_shared(
    browser: Client, browser_of: Any, person: User, fake: FakeInference
) -> None:
    url = f"/features/{SOURCE}/3/label/"
    browser.post(url, {"text": "rivers", "shared": "on"})
    other = User.objects.create_user("other@example.org", name="Olga")
    theirs = browser_of(other)
    assert "rivers" in theirs.get("/features/search/", {"q": "river"}).content.decode()
    theirs.post(url, {"text": "water"})
    assert "water" in theirs.get(f"/features/{SOURCE}/3/").content.decode()
    mine = browser.get(f"/features/{SOURCE}/3/").content.decode()
    assert "rivers" in mine and "water" not in mine  # not shared
    browser.post(url, {"remove": "", "text": "rivers"})
    assert list(FeatureLabel.objects.values_list("text", flat=True)) == ["water"]


def test_a_proposal_is_marked_and_never_replaces_a_word_of_ones_own(
    browser: Client, person: User, fake: FakeInference
) -> None:
    response = browser.post(f"/features/{SOURCE}/3/propose/")
    started(response, "name_feature")
    label = FeatureLabel.objects.get()
    assert (label.owner, label.proposed) == (person, True)
    assert label.text.startswith("the quick brown fox jumps")
    page = browser.get(f"/features/{SOURCE}/3/").content.decode()
    assert "proposed by the model" in page
    browser.post(f"/features/{SOURCE}/3/label/", {"text": label.text, "adopt": "", "shared": "on"})
    label.refresh_from_db()
    assert label.proposed is False
    assert labels.label_propose(person, MODEL, FeatureRef(SOURCE, 3), "something else") is None
    label.refresh_from_db()
    assert label.text != "something else"


def test_a_proposal_needs_contexts(browser: Client, fake: FakeInference) -> None:
    fake.payloads["describe_feature"] = description(3, contexts=0)
    browser.post(f"/features/{SOURCE}/3/propose/")
    job = ended(Job.objects.get(kind="name_feature"))
    assert (job.state, job.error_code) == ("failed", "not_indexed")
    assert "index a corpus" in browser.get(f"/features/{SOURCE}/3/").content.decode()


def test_excerpts_mark_what_fires() -> None:
    context = {"tokens": ["By", " the", " river", " bank", ","], "values": [0.0, 0.1, 4.0, 3.0, 0.0], "at": 2}
    assert excerpt_of(context) == "By the «river bank»,"


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("Rivers and banks.", "Rivers and banks"),
        ('"Rivers"\nThey all…', "Rivers"),
        ("The marked words are animals. They", "animals"),
        ("Answer: cats", "cats"),
        (" \n", ""),
        ("word " * 40, ("word " * 16).strip()),
    ],
)
def test_a_label_is_the_phrase_of_an_answer(said: str, label: str) -> None:
    assert label_of(said) == label


def test_the_library_offers_labelled_features_and_sources(browser: Client, person: User, fake: FakeInference) -> None:
    labels.label_set(person, MODEL, FeatureRef(SOURCE, 3), "foxes")
    found = browser.get("/features/library.json").json()
    assert found["sources"] == [
        {"id": SOURCE, "layer": 2, "hook_name": "blocks.2.hook_resid_post", "width": 64, "indexed": True}
    ]
    assert [(f["index"], f["text"]) for f in found["features"]] == [(3, "foxes")]


def test_an_autoencoder_of_what_enters_a_block_lies_behind_the_block_before() -> None:
    """`layer` of a source says so already: it is taken as it is, for watches and for conditions alike."""
    entering = a_source("3-tiny", hook_name="blocks.3.hook_resid_pre", layer=2)
    model = ModelInfo("ready", id=MODEL, sources=(entering,))
    (watch,) = watches_of([FeatureRef("3-tiny", 5)], model)
    assert watch.probe.layer == 2
