"""Pages of policies: the form and its JSON, saving, sharing, cloning, publishing."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from django.http import QueryDict
from django.test import Client

from inference.policies.schema import Policy
from steering.policies import library
from steering.policies.editor import Editor
from steering.policies.fields import FIELDS, merged, shown
from steering.policies.models import PolicyPreset, StoredPolicy
from steering.policies.starters import load_starter_policies
from tests.fake_inference import FakeInference
from tests.steering.play import keep_vector
from tests.steering.policies import CHECKED, PLAIN, SERVED, a_run, an_outcome, keep_policy

pytestmark = pytest.mark.django_db
TESTED = {"verifiers.enabled": "unit_tests", "verifiers.code_unit_tests": "assert f() == 1"}
RICH: dict[str, Any] = {
    "metadata": {"kept": [1, {"two": None}]},
    "task_profile": {"name": "extraction", "category": "not in the form"},
    "sampling": {"method": "ads", "temperature": 0.9, "ads_subset_size": 8, "top_p": 0.95},
    "steering": {"enabled": False, "vector": {"9": [0.5, -0.25]}, "layer_scope": [9, 10]},
    "constraints": {
        "json_schema": {"type": "object", "properties": {"a": {"type": "string"}}},
        "stop_sequences": ["\n\n", "a\\nb"],
        "forbidden_terms": ["x", " y "],
    },
    "verifiers": {"enabled": ["syntax", "json_schema"], "repair_on_failure": True, "rerank": False},
    "optimization": {"best_of_n": 4, "fallback_methods": ["top-k", "greedy"]},
}


def form_of(editor: Editor) -> QueryDict:
    """What a browser would send of the form that is shown."""
    sent = QueryDict(mutable=True)
    sent["base"], sent["view"] = editor.base, "form"
    for field in FIELDS.values():
        value = shown(field, editor.content)
        if field.kind == "flag":
            if value:
                sent[field.path] = "1"
        elif field.kind == "many":
            sent.setlist(field.path, value)
        else:
            sent[field.path] = value.replace("\n", "\r\n")
    return sent


def test_the_form_sent_back_untouched_changes_nothing(person: Any) -> None:
    editor = Editor(person, SERVED, RICH, {"name": "rich"})
    assert merged(editor.content, form_of(editor)) == RICH
    assert Policy.parse(RICH)


def test_a_field_that_is_changed_changes_that_alone(person: Any) -> None:
    sent = form_of(Editor(person, SERVED, RICH, {}))
    sent["sampling.temperature"] = "0.4"
    sent["constraints.stop_sequences"] = "\\n\r\nEND"
    sent["optimization.fallback_methods"] = ""
    sent["verifiers.repair_on_failure"] = ""
    found = merged(RICH, sent)
    assert found["sampling"] == RICH["sampling"] | {"temperature": 0.4}
    assert found["constraints"] == RICH["constraints"] | {"stop_sequences": ["\n", "END"]}
    assert found["optimization"] == {"best_of_n": 4}
    assert found["verifiers"]["repair_on_failure"] is False
    assert found["metadata"] == RICH["metadata"] and found["steering"] == RICH["steering"]


def test_switching_to_json_and_back_keeps_everything(
    person: Any, browser_of: Any, fake_inference: FakeInference
) -> None:
    browser: Client = browser_of(person)
    sent = form_of(Editor(person, SERVED, RICH, {})).dict() | {
        "verifiers.enabled": ["syntax", "json_schema"], "switch": "json", "name": "rich", "description": "Mine",
        "sampling.temperature": "hot",
    }  # fmt: skip
    there = browser.post("/policies/new/", sent).content.decode()
    text = re.search(r'id="id_json"[^>]*>\n(.*?)</textarea>', there, re.S)
    assert text
    content = json.loads(html.unescape(text[1]))
    assert content == RICH | {"sampling": RICH["sampling"] | {"temperature": "hot"}}  # what is wrong stays too
    back = browser.post(
        "/policies/new/",
        {"base": json.dumps(content), "view": "json", "json": json.dumps(content), "switch": "form", "name": "rich"},
    ).content.decode()
    assert 'value="hot"' in back and "sampling.temperature must be" in html.unescape(back)
    base = re.search(r'name="base" value="(.*?)"', back)
    assert base and json.loads(html.unescape(base[1])) == content


def test_json_that_cannot_be_read_stays_where_it_was_typed(
    person: Any, browser_of: Any, fake_inference: FakeInference
) -> None:
    typed = '{"sampling": {"method": "greedy",}}'
    answer = browser_of(person).post("/policies/new/", {"base": "{}", "view": "json", "json": typed, "switch": "form"})
    page = html.unescape(answer.content.decode())
    assert typed in page and "at line 1, column" in page
    assert StoredPolicy.objects.count() == 0


@pytest.mark.parametrize(
    ("fields", "place", "says"),
    [
        ({"sampling.temperature": "-3"}, "sampling.temperature", "must be"),
        ({"sampling.method": "greedy", "sampling.min_p": "0.2"}, "sampling.min_p", "does not take"),
        ({"constraints.json_schema": '{"type": '}, "constraints.json_schema", "line 1"),
        (TESTED, "verifiers.enabled", "STEERBOARD_UNIT_TESTS"),
        ({"name": "Not A Name"}, "name", "cannot name a policy"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_at_its_field(
    person: Any, fake_inference: FakeInference, fields: dict[str, str], place: str, says: str
) -> None:
    sent = QueryDict(mutable=True)
    sent.update(
        {"base": "{}", "view": "form", "name": "new-one", "verifiers.repair_on_failure": "1", "verifiers.rerank": "1"}
    )
    sent.update({"objective.maximize": "1"})
    for name, value in fields.items():
        sent[name] = value
    editor = Editor.posted(person, SERVED, sent)
    assert not editor.valid()
    assert says in editor.errors.get(place, ""), editor.errors


def test_a_policy_is_saved_and_its_versions_stay(person: Any, browser_of: Any, fake_inference: FakeInference) -> None:
    browser: Client = browser_of(person)
    sent = {"base": "{}", "view": "json", "json": json.dumps(CHECKED), "name": "checked", "description": "Mine"}
    made = browser.post("/policies/new/", sent)
    first = StoredPolicy.objects.get()
    assert made.status_code == 302 and made["Location"] == first.get_absolute_url()
    assert (first.name, first.version, first.parsed.candidates) == ("checked", "1.0", 2)
    page = browser.get(first.get_absolute_url()).content.decode()
    assert "1 forbidden term" in page and "policies/run/" in page
    again = sent | {"json": json.dumps(PLAIN), "version": "1.1"}
    assert browser.post(f"{first.get_absolute_url()}version/", again).status_code == 302
    assert StoredPolicy.objects.get(version="1.1").content["sampling"] == PLAIN["sampling"]
    first.refresh_from_db()
    assert first.content["optimization"] == CHECKED["optimization"]
    taken = browser.post(f"{first.get_absolute_url()}version/", again)
    assert taken.status_code == 400 and "a version never changes" in taken.content.decode()


def test_a_stranger_sees_nothing_until_it_is_shared(
    person: Any, stranger: Any, browser_of: Any, fake_inference: FakeInference
) -> None:
    policy = keep_policy(person, "secret-recipe")
    theirs: Client = browser_of(stranger)
    assert theirs.get(policy.get_absolute_url()).status_code == 404
    assert "secret-recipe" not in theirs.get("/policies/").content.decode()
    browser_of(person).post(f"{policy.get_absolute_url()}share/", {"shared": "1"})
    assert theirs.get(policy.get_absolute_url()).status_code == 200
    assert theirs.post(f"{policy.get_absolute_url()}delete/").status_code == 404
    theirs.post(f"{policy.get_absolute_url()}clone/")
    assert StoredPolicy.objects.get(owner=stranger).content["sampling"] == PLAIN["sampling"]
    browser_of(person).post(f"{policy.get_absolute_url()}share/", {"shared": "0"})
    assert theirs.get(policy.get_absolute_url()).status_code == 404


def test_a_vector_of_another_is_lent_and_not_given(person: Any, stranger: Any, fake_inference: FakeInference) -> None:
    vector = keep_vector(person)
    content = {"steering": {"enabled": True, "vector_id": "calm", "strength": 0.3}}
    policy = keep_policy(person, "calm-answers", content, shared=True)
    assert policy.content["steering"]["vector_id"] == str(vector.pk)  # by id: a version does not change
    assert policy.model_id == vector.model_id
    with pytest.raises(library.InvalidRequest, match="lent"):
        library.clone(stranger, policy)
    with pytest.raises(library.InvalidRequest, match="could not use"):
        library.publish(person, name="calm", content=policy.content, visibility="public")
    with pytest.raises(Exception, match=r"RESTRICT|restrict|referenced"):
        vector.delete()


def test_presets_are_published_found_by_tag_and_cloned(
    person: Any, stranger: Any, browser_of: Any, fake_inference: FakeInference
) -> None:
    policy = keep_policy(person, "checked", CHECKED)
    mine: Client = browser_of(person)
    said = {"name": "Checked twice", "tags": "json, strict ,json", "visibility": "private", "description": "For all"}
    mine.post(f"{policy.get_absolute_url()}publish/", said)
    preset = PolicyPreset.objects.get()
    assert preset.tags == ["json", "strict"]
    theirs: Client = browser_of(stranger)
    assert theirs.get(f"/policies/presets/{preset.pk}/").status_code == 404
    mine.post(f"{policy.get_absolute_url()}publish/", said | {"visibility": "public", "name": "For everyone"})
    public = PolicyPreset.objects.get(visibility="public")
    assert "For everyone" in theirs.get("/policies/presets/?tag=strict").content.decode()
    assert theirs.post(f"/policies/presets/{public.pk}/clone/").status_code == 302
    cloned = StoredPolicy.objects.get(owner=stranger)
    assert (cloned.name, cloned.parsed.candidates) == ("for-everyone", 2)
    assert theirs.post(f"/policies/presets/{public.pk}/delete/").status_code == 404


def test_starters_are_there_once_and_can_be_parsed(db: None, person: Any) -> None:
    names = [policy.name for policy in load_starter_policies()]
    assert load_starter_policies() and StoredPolicy.objects.filter(owner=None).count() == len(names) == 5
    assert library.find(person, "steerboard/diverse-chatbot").parsed.sampling.method == "ads"


def test_an_empty_library_and_pages_say_what_to_do(person: Any, browser_of: Any, fake_inference: FakeInference) -> None:
    browser: Client = browser_of(person)
    for path in ("", "runs/", "presets/", "new/", "run/", "evaluate/", "tune/", "new/?view=json"):
        answer = browser.get(f"/policies/{path}")
        assert answer.status_code == 200, path
    assert "No policies of your own yet" in browser.get("/policies/").content.decode()


@pytest.mark.parametrize("text", ["<script>window.owned=1</script>", "</textarea><img src=x onerror=1>", "{{ 7*7 }}"])
def test_html_in_answers_and_policies_stays_text(
    person: Any, browser_of: Any, fake_inference: FakeInference, text: str
) -> None:
    policy = keep_policy(person, "loud", {"constraints": {"forbidden_terms": [text]}}, description=text)
    run = a_run(person, policy, result={"results": [an_outcome(output=text, reason=text, accepted=False)]})
    browser: Client = browser_of(person)
    for url in (
        policy.get_absolute_url(),
        f"{policy.get_absolute_url()}version/",
        "/policies/",
        run.get_absolute_url(),
    ):
        page = browser.get(url).content.decode()
        assert html.escape(text, quote=False).replace("&gt;", "&gt;")[:12] in page or "{{ 7*7 }}" in page
        assert "<script>window" not in page and "<img src=x" not in page


def test_half_a_pair_of_surrogates_is_refused_and_shown(
    person: Any, browser_of: Any, fake_inference: FakeInference
) -> None:
    typed = '{"description": "\\ud83d", "constraints": {"forbidden_terms": ["\\ud83d"], "json_schema": "\\ud83d"}}'
    sent = {"base": "{}", "view": "json", "json": typed, "name": "half"}
    for more in ({}, {"switch": "form"}, {"view": "form", "base": typed}):
        answer = browser_of(person).post("/policies/new/", sent | more)
        assert answer.status_code in (200, 400), more
    assert "not text" in browser_of(person).post("/policies/new/", sent).content.decode()
    assert not StoredPolicy.objects.exists()
