from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from inference.types import Pair
from steering.datasets.library import Conflict, dataset_create, dataset_revise
from steering.datasets.models import Dataset, ImportDraft
from steering.datasets.starter_catalog import load_starter_datasets

PAIRS = tuple(Pair(f"yes {i}", f"no {i}", f"prompt {i}") for i in range(60))
GOOD = '{"prompt": "p", "positive": "yes", "negative": "no"}'
BAD = '{"prompt": "p", "positive": "yes"}'
LINES = [GOOD, GOOD, BAD, *[GOOD] * 47]


@pytest.fixture
def alice(person):
    return person


@pytest.fixture
def page(browser_of, alice):
    return browser_of(alice)


@pytest.fixture
def dataset(alice) -> Dataset:
    return dataset_create(owner=alice, name="Mine", description="", rows=PAIRS[:3])


def url(name: str, *args: Any) -> str:
    return reverse(f"datasets:{name}", args=args)


def typed(*pairs: Pair, name: str = "Mine", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "description": "",
        "was": ["" for _ in pairs],
        "prompt": [p.prompt for p in pairs],
        "positive": [p.positive for p in pairs],
        "negative": [p.negative for p in pairs],
        **more,
    }


def upload(page, text: str, filename: str = "calm.jsonl", **more: Any):
    data = {"how": "upload", "file": SimpleUploadedFile(filename, text.encode()), **more}
    return page.post(url("new"), data)


def draft_of(response) -> ImportDraft:
    assert response.status_code == 302
    return ImportDraft.objects.get(pk=response.url.rstrip("/").rpartition("/")[2])


# ---- Making datasets ----


def test_typed_pairs_become_a_dataset(page, alice) -> None:
    page.post(url("new"), typed(PAIRS[0], Pair("", "", ""), PAIRS[1], how="type"))
    made = Dataset.objects.owned_by(alice).get()
    assert (made.name, made.version, made.kind, made.pairs()) == ("Mine", 1, "pairs", PAIRS[:2])


def test_a_typed_pair_without_a_side_is_shown_again_with_everything_else(page) -> None:
    response = page.post(url("new"), typed(PAIRS[0], Pair("only this", "", "q"), how="type", name=""))
    text = response.content.decode()
    assert response.status_code == 200
    assert "This pair has an empty negative side." in text
    assert "Give the dataset a name." in text
    assert "only this" in text
    assert "yes 0" in text
    assert not Dataset.objects.exists()


def test_a_pasted_text_waits_in_a_draft_until_it_is_saved(page, alice) -> None:
    draft = draft_of(page.post(url("new"), {"how": "paste", "pasted": f"{GOOD}\r\n{GOOD}", "name": "Pasted"}))
    assert not Dataset.objects.exists()
    page.post(draft.get_absolute_url(), {"action": "save", "name": "Pasted", "description": "d"})
    assert Dataset.objects.owned_by(alice).get().pairs() == (Pair("yes", "no", "p"),) * 2
    assert not ImportDraft.objects.exists()


def test_a_refused_file_keeps_what_was_typed_beside_it(page) -> None:
    data = {"how": "upload", "file": SimpleUploadedFile("a.jsonl.gz", b"\x1f\x8b123"), "name": "Kept name"}
    response = page.post(url("new"), {**data, **typed(PAIRS[0], name="Kept name"), "pasted": "kept paste"})
    text = response.content.decode()
    assert response.status_code == 200
    for kept in ("compressed", "Kept name", "yes 0", "kept paste"):
        assert kept in text


def test_the_bad_line_is_named_with_a_box_to_mend_it(page) -> None:
    draft = draft_of(upload(page, "\n".join(LINES)))
    text = page.get(draft.get_absolute_url()).content.decode()
    assert "Not imported yet: line 3 has no negative side" in text
    assert "Fix line 3 here" in text
    assert "Import the other 49" in text
    assert "&quot;positive&quot;: &quot;yes&quot;}" in text


def test_a_line_is_mended_in_place(page, alice) -> None:
    draft = draft_of(upload(page, "\n".join(LINES)))
    form = {"action": "fix", "fix-3": '{"positive": "mended", "negative": "no", "prompt": ""}', "name": "Kept name"}
    page.post(draft.get_absolute_url(), form)
    assert "Import 50 pairs" in page.get(draft.get_absolute_url()).content.decode()
    page.post(draft.get_absolute_url(), {"action": "save", "name": "Calm", "description": ""})
    assert Dataset.objects.owned_by(alice).get().pairs()[2] == Pair("mended", "no")


def test_the_other_lines_are_imported_without_the_bad_one(page, alice) -> None:
    draft = draft_of(upload(page, "\n".join(LINES)))
    response = page.post(draft.get_absolute_url(), {"action": "save_good", "name": "Calm"}, follow=True)
    assert len(Dataset.objects.owned_by(alice).get().pairs()) == 49
    assert "49 pairs imported, 1 line left out." in response.content.decode()


def test_bad_lines_are_never_left_out_silently(page) -> None:
    draft = draft_of(upload(page, "\n".join(LINES)))
    page.post(draft.get_absolute_url(), {"action": "save", "name": "Calm"})
    assert not Dataset.objects.exists()


def test_a_mended_line_that_is_still_wrong_keeps_its_new_text(page) -> None:
    draft = draft_of(upload(page, "\n".join(LINES)))
    page.post(draft.get_absolute_url(), {"action": "fix", "fix-3": '{"positive": "half mended"}'})
    assert "half mended" in page.get(draft.get_absolute_url()).content.decode()


def test_columns_are_chosen_on_the_preview(page, alice) -> None:
    draft = draft_of(upload(page, '{"q": "p", "good": "yes", "evil": "no"}'))
    assert (
        "Which column holds the positive and the negative side?" in page.get(draft.get_absolute_url()).content.decode()
    )
    columns = {"column-prompt": "q", "column-positive": "good", "column-negative": "evil", "columns-were": "||"}
    page.post(draft.get_absolute_url(), {"action": "update", "name": "Calm", **columns})
    page.post(draft.get_absolute_url(), {"action": "save", "name": "Calm", **columns, "columns-were": "q|good|evil"})
    assert Dataset.objects.owned_by(alice).get().pairs() == (Pair("yes", "no", "p"),)


def test_a_first_line_of_data_is_not_eaten_as_names(page, alice) -> None:
    draft = draft_of(upload(page, "question,yes,no\nq,a,b\n", "a.csv"))
    form = {"action": "update", "header": "no", "header-was": "yes", "columns-were": "question||"}
    page.post(draft.get_absolute_url(), form)
    page.post(draft.get_absolute_url(), {"action": "save", "name": "Calm", "header": "no", "header-was": "no"})
    assert Dataset.objects.owned_by(alice).get().pairs() == (Pair("yes", "no", "question"), Pair("a", "b", "q"))


def test_saving_an_import_without_a_name_asks_for_one(page) -> None:
    draft = draft_of(upload(page, GOOD))
    response = page.post(draft.get_absolute_url(), {"action": "save", "name": ""})
    assert response.status_code == 200
    assert "Give the dataset a name." in response.content.decode()


def test_only_five_drafts_are_kept(page) -> None:
    for _ in range(7):
        upload(page, GOOD)
    assert ImportDraft.objects.count() == 5


# ---- Changing datasets ----


def save(page, dataset: Dataset, *pairs: Pair, version: int = 1, **more: Any):
    return page.post(url("edit", dataset.pk), typed(*pairs, version=version, start=0, whole=1, **more))


def test_rows_are_added_changed_removed_and_reordered_in_one_save(page, dataset) -> None:
    save(page, dataset, PAIRS[2], Pair("changed", "no 0", "prompt 0"), PAIRS[9])
    dataset.refresh_from_db()
    assert (dataset.version, dataset.pairs()) == (2, (PAIRS[2], Pair("changed", "no 0", "prompt 0"), PAIRS[9]))


def test_an_edit_from_an_older_version_changes_nothing_and_loses_nothing(page, dataset) -> None:
    save(page, dataset, PAIRS[5])
    response = save(page, dataset, Pair("my long work", "no"), version=1)
    assert "changed in another tab" in response.content.decode()
    assert "my long work" in response.content.decode()
    assert dataset.pairs() == (PAIRS[5],)


def test_a_conflict_can_be_saved_as_a_copy_or_over_the_other(page, alice, dataset) -> None:
    save(page, dataset, PAIRS[5], PAIRS[6])
    save(page, dataset, PAIRS[7], version=1, action="copy")
    assert Dataset.objects.owned_by(alice).get(name="Mine, copy").pairs() == (PAIRS[7],)
    save(page, dataset, PAIRS[7], version=2)
    assert dataset.pairs() == (PAIRS[7],)


def test_a_long_dataset_is_edited_a_page_at_a_time(page, alice) -> None:
    long = dataset_create(owner=alice, name="Long", description="", rows=PAIRS)
    assert "51 to 60 of 60" in page.get(url("edit", long.pk) + "?page=2").content.decode()
    page.post(url("edit", long.pk), typed(PAIRS[59], version=1, start=50, stop=60, name="Long"))
    assert long.pairs() == (*PAIRS[:50], PAIRS[59])


def test_line_ends_of_rows_nobody_touched_survive_the_browser(page, alice) -> None:
    rows = (Pair("a\r\nb", "c\rd", "e\nf"), PAIRS[0])
    made = dataset_create(owner=alice, name="Ends", description="", rows=rows)
    sent = [Pair("a\r\nb", "c\r\nd", "e\r\nf"), Pair("new\r\nline", "no", "p")]
    save(page, made, *sent, name="Ends", was=["0", "1"])
    assert made.pairs() == (rows[0], Pair("new\nline", "no", "p"))


def test_two_writers_of_one_version_cannot_both_win(dataset) -> None:
    words = {"name": "Mine", "description": "", "start": 0, "stop": 3}
    dataset_revise(dataset=dataset, seen_version=1, rows=PAIRS[:1], **words)
    with pytest.raises(Conflict):
        dataset_revise(dataset=dataset, seen_version=1, rows=PAIRS[:2], **words)


def test_a_digest_is_of_the_pairs_alone(alice, dataset) -> None:
    twin = dataset_create(owner=alice, name="Twin", description="other", rows=PAIRS[:3])
    other = dataset_create(owner=alice, name="Mine", description="", rows=PAIRS[1::-1])
    assert twin.digest() == dataset.digest() != other.digest()


def test_a_dataset_is_deleted_after_a_question(page, dataset) -> None:
    assert "Delete “Mine”?" in page.get(url("delete", dataset.pk)).content.decode()
    page.post(url("delete", dataset.pk))
    assert not Dataset.objects.exists()


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_an_exported_file_imports_to_the_same_digest(page, alice, ending: str) -> None:
    rows = (Pair("=1+1", "-no\n", "@a"), Pair("'", '"q", z', ""))
    made = dataset_create(owner=alice, name="Ördu/../x", description="", rows=rows)
    response = page.get(url("export", made.pk, ending))
    assert f'attachment; filename="ordux-v1.{ending}"' in response["Content-Disposition"]
    draft = draft_of(upload(page, response.content.decode(), f"x.{ending}"))
    page.post(draft.get_absolute_url(), {"action": "save", "name": "Again"})
    assert Dataset.objects.get(name="Again").digest() == made.digest()


# ---- Who may see what ----

PAGES = ["detail", "edit", "duplicate", "delete", "lint"]


@pytest.mark.parametrize("name", PAGES)
def test_a_stranger_gets_a_404(browser_of, stranger, dataset, name: str) -> None:
    theirs = browser_of(stranger)
    assert theirs.post(url(name, dataset.pk)).status_code in (404, 405)
    assert name == "duplicate" or theirs.get(url(name, dataset.pk)).status_code == 404


def test_a_stranger_can_neither_export_nor_preview_nor_list(browser_of, stranger, page, dataset) -> None:
    draft = draft_of(upload(page, GOOD))
    theirs = browser_of(stranger)
    assert theirs.get(url("export", dataset.pk, "csv")).status_code == 404
    assert theirs.get(draft.get_absolute_url()).status_code == 404
    assert theirs.post(draft.get_absolute_url(), {"action": "discard"}).status_code == 404
    assert "Mine" not in theirs.get(url("list")).content.decode()
    assert dataset.pairs() == PAIRS[:3]


def test_starters_are_read_by_all_and_changed_by_none(page, alice) -> None:
    calm = next(d for d in load_starter_datasets() if d.slug == "calm")
    assert page.get(url("detail", calm.pk)).status_code == 200
    assert page.get(url("edit", calm.pk)).status_code == 404
    assert page.post(url("delete", calm.pk)).status_code == 404
    page.post(url("duplicate", calm.pk))
    assert Dataset.objects.owned_by(alice).get().digest() == calm.digest()


def test_loading_starters_again_changes_nothing(db) -> None:
    first = [(d.pk, d.version) for d in load_starter_datasets()]
    assert [(d.pk, d.version) for d in load_starter_datasets()] == first


def test_a_changed_starter_counts_its_version_up(db) -> None:
    calm = next(d for d in load_starter_datasets() if d.slug == "calm")
    digest = calm.digest()
    calm.examples.first().delete()
    again = next(d for d in load_starter_datasets() if d.slug == "calm")
    assert (again.pk, again.version, again.digest()) == (calm.pk, 2, digest)


def test_dataset_text_is_shown_as_text(page, alice) -> None:
    evil = "</textarea><script>alert(1)</script>"
    made = dataset_create(owner=alice, name=evil, description=evil, rows=[Pair(evil, evil, evil)])
    draft = draft_of(upload(page, evil, "a.csv"))
    for address in (url("list"), url("detail", made.pk), url("edit", made.pk), draft.get_absolute_url()):
        assert "<script>alert" not in page.get(address).content.decode()


# ---- The tokenizer's part ----


def tokens(page, dataset: Dataset) -> dict[str, Any]:
    return json.loads(page.get(url("lint", dataset.pk)).content)["tokens"]


def test_merged_tokens_are_named_by_row(page, dataset, fake_inference) -> None:
    fake_inference.payload = {"merged": [1], "lengths": []}
    found = tokens(page, dataset)
    assert (found["state"], found["rows"]) == ("checked", [2])
    assert fake_inference.jobs[0].pairs == PAIRS[:3]


def test_an_unloaded_model_is_said_and_not_waited_for(page, dataset, fake_inference) -> None:
    fake_inference.state = "loading"
    found = tokens(page, dataset)
    assert found["state"] == "waiting"
    assert "the model is still loading" in found["title"]
    assert not fake_inference.jobs
