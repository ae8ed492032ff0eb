"""Attributions: asked, answered, shown, shared, exported and deleted, by their owner and by nobody else."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from inference.errors import InferenceError, InvalidRequest
from inference.types import PatchExactly
from steering.accounts.deletion import delete_account
from steering.accounts.models import User
from steering.attribution import exporting, running
from steering.attribution.models import Attribution, ModelMap, Part
from steering.attribution.reading import check_pairs, paired
from steering.features.models import FeatureLabel
from steering.jobs.models import Job
from tests.fake_inference import MODEL, FakeInference
from tests.guards.hostile import SCRIPTS
from tests.steering.attributions import (
    CLEAN,
    CORRUPTED,
    PAYLOADS,
    QUESTION,
    asked,
    ended,
    found_by,
    heat,
    kept,
)
from tests.steering.features import SOURCE, a_source
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

FORM = {
    "clean_prompt": CLEAN, "corrupted_prompt": CORRUPTED, "metric": "logit_difference", "targets": " Mary",
    "against": " John", "method": "patching", "sites": ["resid_pre", "z"],
}  # fmt: skip


@pytest.fixture
def client(person: User, browser_of: Any, fake_inference: FakeInference) -> Client:
    fake_inference.payloads = dict(PAYLOADS)
    fake_inference.sources = (a_source(),)
    return browser_of(person)


def data_of(page: str) -> dict[str, Any]:
    """What the page hands to its scripts."""
    start = page.index('id="attribution-data"')
    found: dict[str, Any] = json.loads(page[page.index(">", start) + 1 : page.index("</script>", start)])
    return found


# ---- asking ----


def test_a_question_is_asked_answered_and_shown(client: Client, fake_inference: FakeInference) -> None:
    began = client.post("/attribution/new/", FORM)
    attribution = Attribution.objects.get()
    assert began["Location"] == attribution.get_absolute_url()
    ended(attribution)
    job = fake_inference.jobs[-1]
    assert (job.kind, job.clean, job.targets, job.sites) == ("attribute", CLEAN, (" Mary",), ("resid_pre", "z"))  # type: ignore[union-attr]
    page = client.get(attribution.get_absolute_url()).content.decode()
    assert data_of(page)["found"]["attribute"] == heat()
    assert attribution.name == CLEAN and attribution.name in page


def test_a_question_keeps_the_spaces_of_its_targets_and_prompts(client: Client) -> None:
    client.post("/attribution/new/", FORM | {"targets": " Mary\r\nMary", "clean_prompt": f" {CLEAN} "})
    settings = Attribution.objects.get().settings
    assert settings["targets"] == [" Mary", "Mary"] and settings["clean"] == f" {CLEAN} "


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("patching", {"steps": 0, "qk_fix": False, "grad_drop": False}),
        ("qk_fix", {"qk_fix": True, "sites": ["resid_pre", "z", "q", "k"]}),
        ("grad_drop", {"grad_drop": True}),
        ("integrated", {"steps": 5}),
    ],
)
def test_a_method_is_said_in_the_engine_s_words(client: Client, method: str, settings: dict[str, Any]) -> None:
    client.post("/attribution/new/", FORM | {"method": method, "steps": "5"})
    stored = Attribution.objects.get().settings
    assert {name: stored[name] for name in settings} == settings


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"clean_prompt": ""}, "Write the clean prompt"),
        ({"corrupted_prompt": "  "}, "Write the corrupted prompt"),
        ({"targets": ""}, "Name a target token"),
        ({"against": ""}, "needs a token to compare with"),
        ({"sites": []}, "Choose at least one site"),
        ({"layers": "99"}, "layer"),
        ({"alignment": "[[0, 1], [1, 0]]"}, "must be in order"),
        ({"alignment": '[["0", 1]]'}, "two places of tokens"),
        ({"alignment": "[[0"}, "did not arrive whole"),
        ({"clean_prompt": "a\x00b"}, "Null characters are not allowed"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_cure(client: Client, changes: dict[str, Any], says: str) -> None:
    response = client.post("/attribution/new/", FORM | changes)
    assert response.status_code == 400 and says in response.content.decode()
    assert not Attribution.objects.exists()


def test_targets_do_not_count_where_the_metric_has_none(client: Client) -> None:
    client.post("/attribution/new/", FORM | {"metric": "kl"})
    assert Attribution.objects.get().settings["targets"] == []


def test_another_s_question_is_asked_again_where_it_is_shared(
    client: Client, person: User, stranger: User, browser_of: Any
) -> None:
    mine = kept(person)
    again = f"/attribution/new/?from={mine.pk}"
    assert CLEAN in client.get(again).content.decode()
    assert browser_of(stranger).get(again).status_code == 404
    Attribution.objects.filter(pk=mine.pk).update(share="secret")
    assert CLEAN in browser_of(stranger).get(f"{again}&share=secret").content.decode()


# ---- tokens and their pairs ----


def test_prompts_of_one_length_are_paired_place_by_place() -> None:
    one, other = [(1, "a"), (2, "b"), (3, "c")], [(1, "a"), (9, "x"), (3, "c")]
    assert paired(one, other) == (((0, 0), (1, 1), (2, 2)), "place")


def test_prompts_of_two_lengths_are_paired_by_what_they_share() -> None:
    one, other = [(1, "a"), (2, "b"), (3, "c")], [(1, "a"), (8, "x"), (9, "y"), (3, "c")]
    assert paired(one, other) == (((0, 0), (1, 2), (2, 3)), "difference")


def test_where_little_is_shared_the_last_tokens_are_paired_and_the_rest_is_for_a_person() -> None:
    one, other = [(1, "a"), (2, "b"), (3, "c")], [(7, "x"), (8, "y"), (9, "z"), (6, "w")]
    assert paired(one, other) == (((2, 3),), "nothing")


@pytest.mark.parametrize(
    "pairs", [[[0]], [[0, -1]], [[0, True]], [[0, 9]], [[0, 0], [1, 0]], [[1, 1], [0, 2]], [[0.5, 1]]]
)
def test_pairs_that_cross_or_are_none_are_refused(pairs: Any) -> None:
    with pytest.raises(InvalidRequest, match="mend the pairs"):
        check_pairs(pairs, 9)


def test_tokens_are_read_before_anything_runs(client: Client, fake_inference: FakeInference) -> None:
    texts = {"clean": "one two three", "corrupted": "one 2 3 three", "targets": [" four", "five six"]}
    found = client.post("/attribution/tokens/", json.dumps(texts), content_type="application/json").json()
    assert [token["text"] for token in found["corrupted"]] == ["one", " 2", " 3", " three"]
    assert found["pairs"] == [[0, 0], [1, 2], [2, 3]] and found["by"] == "difference"
    assert [row["tokens"] for row in found["targets"]] == [1, 2]
    assert {request.sampling.max_tokens for request in fake_inference.requests} == {0}
    assert not Job.objects.exists()


@pytest.mark.parametrize("body", ["[]", '{"clean": 1, "corrupted": "a"}', "{", '{"clean": "", "corrupted": ""}'])
def test_tokens_that_cannot_be_read_are_a_sentence(client: Client, body: str) -> None:
    found = client.post("/attribution/tokens/", body, content_type="application/json")
    assert found.status_code == 200 and found.json()["problem"].endswith(".")


# ---- further parts ----


@pytest.mark.parametrize("kind", ["patch_exactly", "attribute_features", "logit_lens", "direct_logits"])
def test_a_further_part_is_one_click_away(client: Client, person: User, kind: str) -> None:
    attribution = asked(person)
    ended(attribution)
    client.post(f"{attribution.get_absolute_url()}parts/", {"kind": kind, "source": SOURCE, "top": "2"})
    part = ended(attribution, kind)
    assert part.findings == found_by(kind)
    assert data_of(client.get(attribution.get_absolute_url()).content.decode())["found"].keys() == {"attribute", kind}


def test_the_top_of_each_site_is_patched(client: Client, person: User, fake_inference: FakeInference) -> None:
    attribution = kept(person, model_id=MODEL)
    running.verify(attribution, top=2, each=True)
    ended(attribution, "patch_exactly")
    job = fake_inference.jobs[-1]
    assert isinstance(job, PatchExactly)
    places = [(c.site, c.layer, c.position, c.head) for c in job.components]
    assert places == [
        ("resid_pre", 1, 2, None), ("resid_pre", 0, 2, None), ("attn_out", 1, 2, None), ("attn_out", 0, 2, None),
        ("z", 1, 2, 0), ("z", 0, 2, 0),
    ]  # fmt: skip


def test_scores_that_are_summed_over_positions_are_read_too(client: Client, person: User) -> None:
    summed = {"sites": {"resid_pre": [1.0, 2.0], "z": [[0.5, 3.0], [0.0, 1.0]]}, "top": []}
    attribution = kept(person, settings=running.stored(replace(QUESTION, by_position=False)))
    attribution.parts.update(findings=heat(**summed))
    found = running.strongest_of_each(attribution, 1)
    assert [(c.site, c.layer, c.position, c.head) for c in found] == [("resid_pre", 1, None, None), ("z", 0, None, 1)]
    assert len(list(exporting.rows_of(attribution))) == 2 + 4


def test_a_part_that_is_being_found_is_not_begun_twice(
    client: Client, person: User, fake_inference: FakeInference
) -> None:
    fake_inference.delay = 0.5
    attribution = asked(person)
    page = client.post(f"{attribution.get_absolute_url()}parts/", {"kind": "attribute"}, follow=True).content.decode()
    assert "is being found already" in page and attribution.parts.count() == 1
    running.attribution_cancel(attribution)
    assert attribution.parts.get().state == "cancelled"


def test_what_the_engine_refuses_is_said_with_the_way_back(
    client: Client, person: User, fake_inference: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> Any:
        raise InvalidRequest("unaligned_prompts", "The prompts have little in common. Write others.")

    monkeypatch.setattr(fake_inference, "_payload", refuse)
    attribution = asked(person)
    assert ended(attribution).state == "failed"
    page = client.get(attribution.get_absolute_url()).content.decode()
    assert "The prompts have little in common. Write others." in page and f"?from={attribution.pk}" in page


def test_an_unknown_part_and_a_bad_number_are_refused(client: Client, person: User) -> None:
    attribution = kept(person)
    path = f"{attribution.get_absolute_url()}parts/"
    assert "is not a part" in client.post(path, {"kind": "poem"}, follow=True).content.decode()
    assert "Patch 1 to" in client.post(path, {"kind": "patch_exactly", "top": "0"}, follow=True).content.decode()
    assert attribution.parts.count() == 1


def test_direct_logits_of_kl_are_refused(person: User, fake_inference: FakeInference) -> None:
    settings = running.stored(replace(QUESTION, metric="kl", targets=(), against=()))
    with pytest.raises(InferenceError, match="KL has none"):
        running.direct(kept(person, settings=settings))


# ---- sharing, exporting, deleting ----


def test_only_the_owner_and_who_has_the_link_may_read(
    client: Client, person: User, stranger: User, browser_of: Any
) -> None:
    attribution = kept(person, *PAYLOADS.keys() - {"map_model"})
    other, path = browser_of(stranger), attribution.get_absolute_url()
    assert other.get(path).status_code == 404
    client.post(f"{path}share/", {"shared": "1"})
    attribution.refresh_from_db()
    page = other.get(f"{path}?share={attribution.share}").content.decode()
    assert data_of(page)["found"]["attribute"] == heat()
    assert "Verify again" not in page and "/parts/" not in page and "/delete/" not in page
    assert other.get(f"{path}attribution.csv?share={attribution.share}").status_code == 200
    assert other.post(f"{path}delete/?share={attribution.share}").status_code == 404
    assert other.post(f"{path}parts/?share={attribution.share}", {"kind": "logit_lens"}).status_code == 404
    client.post(f"{path}share/")
    assert other.get(f"{path}?share={attribution.share}").status_code == 404


def test_labels_are_those_that_the_reader_may_see(client: Client, person: User, stranger: User) -> None:
    attribution = kept(person, "attribute", "attribute_features")
    label = {"model_id": "m", "source": SOURCE, "text": "names"}
    FeatureLabel.objects.create(owner=stranger, index=3, shared=False, **label)
    FeatureLabel.objects.create(owner=person, index=5, shared=False, **label)
    assert data_of(client.get(attribution.get_absolute_url()).content.decode())["labels"] == {"5": "names"}


def test_a_csv_has_every_place_patch_and_feature(client: Client, person: User) -> None:
    attribution = kept(person, *PAYLOADS.keys() - {"map_model"})
    text = client.get(f"{attribution.get_absolute_url()}attribution.csv").content.decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    count = {kind: sum(row["part"] == kind for row in rows) for kind in PAYLOADS}
    assert count == {
        "attribute": 7 + 7 + 14, "patch_exactly": 2, "attribute_features": 3, "logit_lens": 12, "direct_logits": 7,
        "map_model": 0,
    }  # fmt: skip
    assert rows[2] | {"hook": "blocks.0.hook_resid_pre", "token": " Mary", "predicted": "1.5"} == rows[2]


def test_a_csv_holds_no_formula(client: Client, person: User) -> None:
    attribution = kept(person)
    found = heat()
    found["corrupted"]["tokens"][0][1] = "=HYPERLINK(1)"
    attribution.parts.update(findings=found)
    text = client.get(f"{attribution.get_absolute_url()}attribution.csv").content.decode()
    assert ",'=HYPERLINK(1)," in text and ",=HYPERLINK" not in text


def test_json_has_the_question_and_all_that_was_found(client: Client, person: User) -> None:
    attribution = kept(person, "attribute", "logit_lens")
    found = client.get(f"{attribution.get_absolute_url()}attribution.json").json()
    assert found["settings"] == attribution.settings
    assert {kind: part["findings"] for kind, part in found["parts"].items()} == {
        kind: PAYLOADS[kind] for kind in ("attribute", "logit_lens")
    }


def test_deleting_cancels_what_runs(client: Client, person: User, fake_inference: FakeInference) -> None:
    fake_inference.delay = 1.0
    attribution = asked(person)
    assert "asks first" in client.get(attribution.get_absolute_url()).content.decode()
    client.post(f"{attribution.get_absolute_url()}delete/")
    assert not Attribution.objects.exists() and not Part.objects.exists()
    assert Job.objects.get().state == "cancelled"


def test_what_was_found_outlives_the_job(client: Client, person: User) -> None:
    attribution = asked(person)
    ended(attribution)
    assert Job.objects.get().result == {"attribution": str(attribution.pk)}
    Job.objects.all().delete()
    assert attribution.parts.get().state == "succeeded"
    assert client.get(attribution.get_absolute_url()).status_code == 200


def test_everything_goes_with_the_account(person: User, stranger: User, fake_inference: FakeInference) -> None:
    fake_inference.delay = 1.0
    asked(person)
    theirs = kept(stranger)
    delete_account(person)
    assert list(Attribution.objects.all()) == [theirs] and Part.objects.count() == 1


def test_a_name_is_changed_and_never_empty(client: Client, person: User) -> None:
    attribution = kept(person)
    client.post(f"{attribution.get_absolute_url()}rename/", {"name": "  The \n drink "})
    attribution.refresh_from_db()
    assert attribution.name == "The drink"
    client.post(f"{attribution.get_absolute_url()}rename/", {"name": " "})
    attribution.refresh_from_db()
    assert attribution.name == "The drink"


def test_tokens_and_names_are_text(client: Client, person: User) -> None:
    attribution = kept(person, name=SCRIPTS["closing"])
    found = heat()
    found["corrupted"]["tokens"] = [[n, text] for n, text in enumerate([*SCRIPTS.values()][:4])]
    attribution.parts.update(findings=found)
    for path in (attribution.get_absolute_url(), "/attribution/", f"/attribution/new/?from={attribution.pk}"):
        page = client.get(path).content.decode()
        assert "<script>window.owned" not in page and "<img src=x" not in page


# ---- the model's map ----


def test_the_model_is_mapped_once_for_everybody(client: Client, person: User, stranger: User, browser_of: Any) -> None:
    assert "is not mapped yet" in client.get(reverse("attribution:map")).content.decode()
    client.post(reverse("attribution:map"))
    job = Job.objects.get(kind="map_model")
    until(ModelMap.objects.exists)
    assert ModelMap.objects.get().model_id == MODEL and job.owner == person
    page = browser_of(stranger).get(reverse("attribution:map")).content.decode()
    assert "blocks.{layer}.hook_resid_post" in page
