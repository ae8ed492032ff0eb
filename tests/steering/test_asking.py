"""Asking the model for pairs: the job, the draft, its pages. The model is a fake that writes what a test gives it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from inference.persona import DescribedPairs, PersonaPairs
from inference.types import Event, Finished, GenerationRequest, Progress, Receipt, Result, Score, Started, Token, Usage
from steering.access.models import LedgerEntry
from steering.accounts.models import User
from steering.datasets import asking
from steering.datasets.models import Dataset, ImportDraft
from steering.jobs import runner
from steering.jobs.models import Job
from tests.fake_inference import FakeInference
from tests.steering.endings import ended
from tests.steering.test_jobs import until_job
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
HOSTILE = "</textarea><script>window.owned=1</script>"


class Writer(FakeInference):
    """Writes a sentence of its own each time, and judges every positive text as rather yes."""

    words = "The answer is number"

    def __init__(self) -> None:
        super().__init__(delay=0.0)
        self.began = self.left = 0

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        self.began += 1
        number = self.began
        text = f"{self.words} {number} {'north' if number % 2 else 'south'} {number * 7}."
        yield Started(request.id, 0, prompt_tokens=10, seed=1)
        try:
            await asyncio.sleep(self.delay)
            yield Token(request.id, 1, 5, text)
        except (GeneratorExit, asyncio.CancelledError):
            self.left += 1
            raise
        yield Finished(request.id, 2, "stop", Usage(10, 6), Receipt("m", "r", 1), seconds=0.1)

    async def run(self, job: Any) -> AsyncIterator[Event]:
        assert isinstance(job, Score)
        yield Progress(job.id, 0, 0, 1)
        each = [{"logprobs": [-0.1, -2.0] if n % 2 == 0 else [-2.0, -0.1]} for n, _ in enumerate(job.items)]
        yield Result(job.id, 1, {"items": each})


@pytest.fixture
def writer(fake_inference: FakeInference) -> Any:
    from steering import gateway

    made = Writer()
    gateway.set_inference(made)
    return made


@pytest.fixture
def client(person: User, browser_of: Any, writer: Writer) -> Client:
    return browser_of(person)


def ask(client: Client, **form: Any) -> Job:
    client.post(reverse("datasets:describe"), {"how": "description", "trait": "cheerful", "count": 8} | form)
    return ended(Job.objects.get())


def test_what_the_model_wrote_is_a_draft_that_says_how_many_were_usable(client: Client) -> None:
    job = ask(client, opposite="gloomy")
    draft = ImportDraft.objects.get()
    page = client.get(job.result_url).content.decode()
    assert job.state == "succeeded", job.error_message
    assert job.result_url == draft.get_absolute_url() == reverse("datasets:review", args=[draft.pk])
    assert (draft.written["asked"], draft.written["written"], draft.written["usable"]) == (8, 12, 12)
    assert "8 pairs were asked for; the model wrote 12, and 12 are usable." in page
    assert "Judge: yes to the positive side with 87%" in page
    assert not Dataset.objects.exists()
    assert client.get(reverse("datasets:describing", args=[job.pk]))["Location"] == job.result_url


def test_a_draft_is_edited_kept_and_then_saved_and_built_from(client: Client, person: User) -> None:
    draft = ImportDraft.objects.get(pk=ask(client, how="persona").result_url.split("/")[-2])
    form: dict[str, Any] = {"name": "Cheer", "description": "", "was": ["1", ""], "prompt": ["Hi", "You?"]}
    form |= {"positive": ["Great!", "Fine!"], "negative": ["Bad.", "Poor."]}
    url = reverse("datasets:review", args=[draft.pk])
    client.post(url, form | {"action": "keep"})
    draft.refresh_from_db()
    assert (draft.name, len(draft.text.splitlines()), len(draft.written["scores"])) == ("Cheer", 2, 2)
    assert draft.written["scores"][1] is None  # this pair is a person's
    answer = client.post(url, form | {"action": "build"})
    dataset = Dataset.objects.get()
    assert [(p.prompt, p.positive, p.negative) for p in dataset.pairs()] == [
        ("Hi", "Great!", "Bad."),
        ("You?", "Fine!", "Poor."),
    ]
    assert answer["Location"].startswith(f"{reverse('vectors:build')}?dataset={dataset.pk}")
    assert "chat=on" in answer["Location"]
    assert not ImportDraft.objects.exists()


def test_what_the_model_writes_is_text_on_every_page(client: Client, writer: Writer) -> None:
    writer.words = HOSTILE + " {{ 7*7 }}"
    job = ask(client, trait=HOSTILE, opposite="{% debug %}")
    for url in (job.result_url, job.get_absolute_url(), reverse("datasets:list"), reverse("jobs:list")):
        page = client.get(url).content.decode()
        assert "<script>window.owned" not in page, url
    assert "{{ 7*7 }}" in client.get(job.result_url).content.decode()


def test_too_few_usable_pairs_fail_with_a_cure_and_the_settings_again(client: Client, writer: Writer) -> None:
    writer.words = "too"  # two words and numbers: then one word each
    writer.generate = _says("No")  # type: ignore[method-assign]
    job = ask(client, seed=5)
    page = client.get(reverse("datasets:describing", args=[job.pk]))
    assert (job.state, job.error_code) == ("failed", "too_few_usable")
    assert "a side without words" in job.error_message
    form = client.get(page.context["again"]).context["form"]
    assert (form["trait"].value(), form["seed"].value(), form["how"].value()) == ("cheerful", "5", "description")


def _says(text: str) -> Any:
    async def generate(request: GenerationRequest) -> AsyncIterator[Event]:
        yield Token(request.id, 0, 5, text)
        yield Finished(request.id, 1, "stop", Usage(10, 1), Receipt("m", "r", 1), seconds=0.1)

    return generate


def test_what_was_read_and_written_is_charged(client: Client) -> None:
    ask(client, judge="none")
    entry = LedgerEntry.objects.get()
    assert (entry.state, entry.prompt_tokens, entry.completion_tokens) == ("settled", 24 * 10, 24 * 6)


def test_a_cancel_ends_all_rows_at_once_and_charges_what_was_written(
    client: Client, person: User, writer: Writer
) -> None:
    writer.delay = 0.3
    job = asking.pairs_ask(owner=person, request=DescribedPairs("", "cheerful", count=60, judge="none"))
    until_job(job, lambda j: j.facts.get("written", 0) >= 2)
    assert runner.job_cancel(job)
    before = writer.began
    until(lambda: writer.left, what="the rows are left")
    time.sleep(0.4)
    job.refresh_from_db()
    entry = LedgerEntry.objects.get()
    assert (job.state, entry.state) == ("cancelled", "settled")
    assert entry.completion_tokens > 0
    assert writer.began <= before + 1  # nothing new was begun
    assert not ImportDraft.objects.exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"trait": " "}, "Say in a word or a sentence"),
        ({"count": 3}, "Ask for 6 to 200 pairs"),
        ({"opposite": "Cheerful!"}, "Trait and opposite are the same"),
        ({"temperature": "0"}, "every try is the same"),
        ({"how": "persona", "positive": "You are kind.\nBe kind.", "negative": "Be rude."}, "needs its counterpart"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_work(change: dict[str, Any], sentence: str, client: Client) -> None:
    form = {"how": "description", "trait": "cheerful", "count": 8} | change
    assert sentence in client.post(reverse("datasets:describe"), form).content.decode()
    assert not Job.objects.exists()


def test_a_persona_is_asked_with_both_system_prompts_and_read_without(client: Client, writer: Writer) -> None:
    seen: list[GenerationRequest] = []
    plain = writer.generate

    def generate(request: GenerationRequest) -> AsyncIterator[Event]:
        seen.append(request)
        return plain(request)

    writer.generate = generate  # type: ignore[method-assign]
    form = {
        "how": "persona",
        "prompts": "How are you?",
        "positive": "Be kind.",
        "negative": "Be rude.",
        "judge": "none",
    }
    ask(client, **form)
    systems = {request.messages[0].content for request in seen if request.messages}
    assert systems == {"Be kind.", "Be rude."}
    assert len({request.sampling.seed for request in seen}) == len(seen)
    assert '"prompt": "How are you?"' in ImportDraft.objects.get().text


def test_a_recipe_is_carried_by_a_web_worker_from_its_row(person: User, writer: Writer) -> None:
    from steering import gateway

    request = PersonaPairs("", "kind", count=6, judge="none")
    job = Job.objects.create(
        owner=person,
        kind=request.kind,
        title="t",
        work=request.to_wire(),
        request=request.to_wire() | {"name": "Kind", "keep_as": "dataset"},
    )
    gateway.call(runner.job_carry(job.pk))
    job.refresh_from_db()
    assert job.state == "succeeded", job.error_message
    assert Dataset.objects.get().get_absolute_url() == job.result_url


@pytest.mark.parametrize("name", ["review", "describing"])
def test_strangers_get_404(name: str, client: Client, stranger: User, browser_of: Any) -> None:
    job = ask(client)
    pk = job.pk if name == "describing" else ImportDraft.objects.get().pk
    assert browser_of(stranger).get(reverse(f"datasets:{name}", args=[pk])).status_code == 404
