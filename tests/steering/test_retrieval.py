"""Collections and questions: kept, shared, asked, answered, shown and deleted, by their owner and by nobody else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from inference.errors import InferenceError, InvalidRequest
from inference.raag import AnswerFromPassages
from steering.access.models import LedgerEntry
from steering.accounts.models import User
from steering.jobs.models import Job
from steering.retrieval import indexing, library
from steering.retrieval.forms import labels, pasted
from steering.retrieval.library import Draft, drafts_of
from steering.retrieval.models import Collection, Document, Question
from tests.fake_inference import MODEL, FakeInference
from tests.guards.hostile import SCRIPTS
from tests.steering.documents import ASKED, LIGHT, VILLAGE, a_collection, an_answer, answered, attributed
from tests.steering.play import keep_vector
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

FORM = {"question": ASKED, "source": "pasted", "documents": f"{VILLAGE}\n---\n{LIGHT}", "relevant": "2", "k": "2",
        "way": "hybrid", "steer": "none", "max_tokens": "8"}  # fmt: skip


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Any, settings: Any) -> None:
    settings.DATA_DIR = tmp_path


@pytest.fixture
def client(person: User, browser_of: Any, fake_inference: FakeInference) -> Client:
    fake_inference.payloads = {"attribute_answer": attributed()}
    return browser_of(person)


def ended(question: Question) -> Question:
    def over() -> bool:
        question.refresh_from_db(from_queryset=Question.objects.select_related("job"))
        return not question.is_active

    until(over)
    return question


def data_of(page: str) -> dict[str, Any]:
    """What the page hands to its scripts."""
    start = page.index('id="question-data"')
    found: dict[str, Any] = json.loads(page[page.index(">", start) + 1 : page.index("</script>", start)])
    return found


# ---- asking ----


def test_a_question_is_asked_answered_and_shown(client: Client, fake_inference: FakeInference) -> None:
    began = client.post("/questions/new/", FORM)
    question = Question.objects.get()
    assert began["Location"] == question.get_absolute_url()
    assert ended(question).state == "succeeded"
    request, job = fake_inference.requests[-1], fake_inference.jobs[-1]
    content = request.messages[-1].content  # type: ignore[index]
    assert content.index(LIGHT) < content.index(VILLAGE), "the best passage comes first"
    assert request.sampling.temperature == 0 and request.sampling.max_tokens == 8
    assert (job.kind, job.messages) == ("attribute_answer", request.messages)  # type: ignore[union-attr]
    assert [content[s.text : s.stop].strip() for s in job.spans] == [LIGHT, VILLAGE]  # type: ignore[union-attr]
    page = client.get(question.get_absolute_url()).content.decode()
    assert data_of(page)["drops"] == attributed()["drops"] and "Average precision" in page
    assert question.findings and question.findings["retrieval"]["precision_at_1"] == 1.0


def test_a_collection_is_searched_and_what_steers_reaches_answer_and_attribution(
    client: Client, person: User, fake_inference: FakeInference
) -> None:
    collection, vector = a_collection(person, "Kessin", VILLAGE, LIGHT), keep_vector(person)
    asked = {"source": "collection", "collection": collection.pk, "k": "1", "steer": "vector", "vector": vector.pk}
    client.post("/questions/new/", FORM | asked | {"strength": "0.4"})
    question = ended(Question.objects.get())
    assert [p["text"] for p in question.settings["passages"]] == [LIGHT]
    assert question.settings["steered_by"].endswith("+0.4") and question.collection == collection
    both = fake_inference.requests[-1].interventions, fake_inference.jobs[-1].interventions  # type: ignore[union-attr]
    assert both[0] == both[1] and both[0][0].strength == 0.4
    assert "Kessin" in client.get("/questions/").content.decode()
    refused = client.post(f"/questions/{question.pk}/again/", follow=True)
    assert "steered" in refused.content.decode() and Question.objects.count() == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"question": " "}, "The question is empty"),
        ({"documents": " --- "}, "Paste the documents"),
        ({"source": "collection"}, "Choose the collection"),
        ({"steer": "vector"}, "Choose the vector"),
        ({"steer": "preset"}, "Choose the preset"),
        ({"documents": "x" * 200_001}, "200000 characters"),
        ({"k": "99"}, "12"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_sentence(client: Client, change: dict[str, Any], sentence: str) -> None:
    answer = client.post("/questions/new/", FORM | change)
    assert answer.status_code == 400 and sentence in answer.content.decode()
    assert not Question.objects.exists() and not Job.objects.exists()


def test_a_failure_says_why_and_lets_one_ask_again(client: Client, fake_inference: FakeInference) -> None:
    fake_inference.payloads = {"attribute_answer": {}}  # nothing that could be kept
    client.post("/questions/new/", FORM)
    question = ended(Question.objects.get())
    page = client.get(question.get_absolute_url()).content.decode()
    assert question.state == "failed" and "The question was not answered" in page and LIGHT in page
    fake_inference.payloads = {"attribute_answer": attributed()}
    again = client.post(f"/questions/{question.pk}/again/")
    assert ended(Question.objects.get(pk=again["Location"].split("/")[2])).state == "succeeded"


def test_cancelling_ends_it_and_nothing_is_kept(client: Client, fake_inference: FakeInference) -> None:
    fake_inference.delay = 0.5
    client.post("/questions/new/", FORM)
    question = Question.objects.get()
    assert "Cancel" in client.get(question.get_absolute_url()).content.decode()
    client.post(f"/jobs/{question.job_id}/cancel/")
    assert ended(question).state == "cancelled" and question.findings is None
    assert "nothing was answered" in client.get(question.get_absolute_url()).content.decode()


def test_what_was_read_and_written_is_charged(client: Client) -> None:
    client.post("/questions/new/", FORM)
    ended(Question.objects.get())
    record = LedgerEntry.objects.get()
    found = Question.objects.get().findings
    assert found and record.source == "raag"
    assert record.prompt_tokens + record.completion_tokens >= (len(found["prompt_tokens"]) + 3) * 5


def test_a_question_can_be_changed_exported_and_deleted(client: Client, person: User) -> None:
    question = an_answer(person)
    form = client.get(f"/questions/new/?from={question.pk}").content.decode()
    assert ASKED in form and VILLAGE in form
    exported = client.get(f"/questions/{question.pk}/question.json").json()
    assert exported["findings"] == answered()
    client.post(f"/questions/{question.pk}/delete/")
    assert not Question.objects.exists()


@pytest.mark.parametrize("text", [SCRIPTS[name] for name in ("script", "closing", "handler", "frame", "json")])
def test_hostile_text_stays_text(client: Client, person: User, text: str) -> None:
    an_answer(person, text=text, findings=answered(answer=text, answer_tokens=[[1, text]] * 3, prompt=text))
    collection = a_collection(person, "Hostile", text)
    there, document = collection.get_absolute_url(), collection.documents.get().pk
    pages = [Question.objects.get().get_absolute_url(), "/questions/", there, f"{there}?q=a"]
    for page in (*pages, f"/questions/documents/{document}/"):
        assert text not in client.get(page).content.decode()


def test_pasted_documents_are_told_apart_by_lines() -> None:
    assert [(d.id, d.text) for d in pasted("a\nb\r\n --- \n\n---\nc")] == [("1", "a\nb"), ("2", "c")]
    assert labels(" 2, 3 2 ") == ("2", "3")


# ---- collections ----


def test_documents_are_pasted_uploaded_searched_and_deleted(client: Client, person: User) -> None:
    client.post("/questions/collections/new/", {"name": " My  village "})
    collection = Collection.objects.get()
    assert collection.name == "My village"
    files = [
        SimpleUploadedFile("light.md", LIGHT.encode()),
        SimpleUploadedFile("more.jsonl", b'{"text": "Rye bread."}\n\n{"title": "Ice", "text": "The river freezes."}\n'),
    ]
    client.post(collection.get_absolute_url(), {"title": "", "text": VILLAGE, "files": files})
    titles = list(collection.documents.values_list("title", flat=True))
    assert sorted(titles) == sorted(["light", "more 1", "Ice", VILLAGE[:60]])
    page = client.get(collection.get_absolute_url(), {"q": "who built the lighthouse"}).content.decode()
    assert page.index("Mara Olsted") < page.index("words #") or "words #1" in page
    for document in collection.documents.all():
        client.post(f"/questions/documents/{document.pk}/delete/")
    assert (
        not Document.objects.exists()
        and "No documents yet" in client.get(collection.get_absolute_url()).content.decode()
    )


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.pdf", b"x", "file_kind"),
        ("a.txt", b"\xff\xfe", "not_utf8"),
        ("a.jsonl", b"[1]", "bad_line"),
        ("a.jsonl", b'{"text": 1}', "bad_line"),
    ],
)
def test_files_that_cannot_be_read_are_refused_by_name(name: str, content: bytes, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        drafts_of([(name, content)])
    assert refused.value.code == code and name in refused.value.message


def test_limits_of_a_collection_hold(person: User, monkeypatch: Any) -> None:
    collection = a_collection(person)
    monkeypatch.setattr(library, "MOST_DOCUMENTS", 2)
    monkeypatch.setattr(library, "MOST_CHARACTERS", 100)
    for drafts, code in (
        ([Draft("", "a"), Draft("", "b")], "too_many_documents"),
        ([Draft("", "a" * 90)], "collection_full"),
        ([Draft("x", "  ")], "empty_document"),
        ([], "no_documents"),
        ([Draft("", "a\x00b")], "bad_text"),
    ):
        with pytest.raises(InferenceError) as refused:
            library.documents_add(collection, drafts)
        assert refused.value.code == code
    assert collection.documents.count() == 1
    with pytest.raises(InvalidRequest):
        library.collection_create(owner=person, name=collection.name)


def test_an_index_is_kept_on_disk_used_again_and_goes_with_its_collection(person: User, monkeypatch: Any) -> None:
    collection = a_collection(person, "Kessin", VILLAGE, LIGHT)
    first = indexing.of_collection(collection).search(ASKED, 2)
    folder = indexing.folder_of(collection.pk)
    assert len(list(folder.iterdir())) == 1
    indexing._kept.clear()
    monkeypatch.setattr(indexing.Index, "of", None)  # to be read, not made
    assert [chunk for chunk, _ in indexing.of_collection(collection).search(ASKED, 2)] == [chunk for chunk, _ in first]
    monkeypatch.undo()
    settings_folder = settings.DATA_DIR
    assert str(folder).startswith(str(settings_folder))
    library.documents_add(collection, [Draft("", "The river freezes.")])
    assert len(indexing.of_collection(collection).chunks) == 3 and len(list(folder.iterdir())) == 1
    collection.delete()
    assert not folder.exists()


def test_a_lost_or_broken_index_is_made_again(person: User) -> None:
    collection = a_collection(person)
    indexing.of_collection(collection)
    for file in indexing.folder_of(collection.pk).rglob("vectors.npy"):
        file.write_bytes(b"broken")
    indexing._kept.clear()
    assert indexing.of_collection(collection).search(ASKED, 1)[0][0].text == LIGHT


# ---- who may ----


def test_others_read_and_ask_what_is_shared_and_change_nothing(
    client: Client, stranger: User, fake_inference: FakeInference
) -> None:
    theirs = a_collection(stranger, "Theirs", LIGHT, VILLAGE)
    document = theirs.documents.first()
    assert document
    assert client.get(theirs.get_absolute_url()).status_code == 404
    assert client.get(f"/questions/documents/{document.pk}/").status_code == 404
    library.collection_change(theirs, shared=True)
    assert "Theirs" in client.get("/questions/").content.decode()
    page = client.get(theirs.get_absolute_url()).content.decode()
    assert "Add documents" not in page and "Delete" not in page
    client.post("/questions/new/", FORM | {"source": "collection", "collection": theirs.pk})
    assert ended(Question.objects.get()).state == "succeeded"
    for address in ("", "change/", "share/", "delete/"):
        assert client.post(f"{theirs.get_absolute_url()}{address}", {"text": "x", "name": "y"}).status_code == 404
    assert client.post(f"/questions/documents/{document.pk}/delete/").status_code == 404
    library.collection_change(theirs, shared=False)
    assert client.get(theirs.get_absolute_url()).status_code == 404
    question = Question.objects.get()
    theirs.delete()
    assert client.get(question.get_absolute_url()).status_code == 200, "an answer outlives what it was found in"


def test_another_s_question_is_not_there(client: Client, stranger: User) -> None:
    theirs = an_answer(stranger)
    for address in ("", "question.json", "delete/"):
        assert client.get(f"{theirs.get_absolute_url()}{address}").status_code == 404
    assert client.post(f"{theirs.get_absolute_url()}again/").status_code == 404
    assert client.get(f"/questions/new/?from={theirs.pk}").status_code == 404
    assert ASKED not in client.get("/questions/").content.decode()


def test_the_recipe_is_known_by_its_kind() -> None:
    from steering.jobs.kinds import is_recipe, request_of

    job = Job(work=AnswerFromPassages("1", "Why?", ()).to_wire())
    assert is_recipe(request_of(job))
    assert MODEL
