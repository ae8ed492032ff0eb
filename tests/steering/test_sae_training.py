from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from inference.types import IndexCorpus, Pair, TrainSae
from steering.accounts.models import User
from steering.datasets.library import dataset_create
from steering.features import training_estimate
from steering.features.training_models import Training
from steering.jobs.models import Job
from tests.fake_inference import FakeInference
from tests.steering.features import a_source
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

FACTS: dict[str, Any] = {
    "explained_variance": 0.87,
    "l0": 31.5,
    "dead": 0.01,
    "loss_recovered": 0.93,
    "tokens": 1000,
    "data": {"tokens": 5000},
    "trained": {"steps": 5, "tokens": 5120, "seconds": 61.0, "stopped_early": False},
    "curve": [[1, 280.0, 32.0, 0.1, 0], [5, 60.0, 32.0, 0.8, 2]],
}
FORM = {
    "layer": "2", "architecture": "batchtopk", "width": "512", "k": "16", "steps": "50", "batch": "64", "context": "32",
    "seed": "3", "chats": "0",
}  # fmt: skip


@pytest.fixture
def fake(fake_inference: FakeInference) -> FakeInference:
    fake_inference.delay = 0.0
    fake_inference.sources = (a_source(indexed=True),)
    fake_inference.payloads = {
        "train_sae": {"source": "2-batchtopk-512", "facts": FACTS},
        "index_corpus": {"tokens": 12, "texts": 2, "features": 3, "dead": 61},
    }
    return fake_inference


@pytest.fixture
def browser(browser_of: Any, person: User) -> Client:
    person.is_staff = True
    person.save()
    client: Client = browser_of(person)
    return client


def a_file(text: str = "The fox sees the cat. " * 400) -> SimpleUploadedFile:
    return SimpleUploadedFile("notes.txt", text.encode())


def begun(browser: Client, **fields: Any) -> Training:
    response = browser.post("/features/train/", FORM | fields)
    assert response.status_code == 302, response.content.decode()
    return ended(Training.objects.latest("created_at"))


def ended(training: Training) -> Training:
    found = Training.objects.select_related("job").filter(pk=training.pk)
    until(lambda: not found.get().job.is_active)
    return found.get()


def refused(browser: Client, **fields: Any) -> str:
    response = browser.post("/features/train/", FORM | fields)
    assert response.status_code == 400
    assert not Training.objects.exists()
    return response.content.decode()


def trainings_of(fake: FakeInference) -> list[TrainSae]:
    return [job for job in fake.jobs if isinstance(job, TrainSae)]


def test_a_file_and_a_dataset_become_a_training_with_its_figures(
    fake: FakeInference, browser: Client, person: User
) -> None:
    pairs = tuple(Pair(f"It is calm, {i}.", f"It is loud, {i}!", "Tell me.") for i in range(4))
    dataset = dataset_create(owner=person, name="Calm", description="", rows=pairs)
    training = begun(browser, file=a_file(), licence="CC0", datasets=[str(dataset.pk)], index="on")
    assert training.job
    assert training.job.state == Job.State.SUCCEEDED, training.job.error_message
    (asked,) = trainings_of(fake)
    assert (asked.layer, asked.width, asked.sparsity, asked.steps, asked.seed) == (2, 512, 16, 50, 3)
    assert asked.name == "batchtopk-512"
    assert asked.id == str(training.job.pk)  # so that "stop and keep" reaches it
    assert asked.texts[-1].startswith("The fox sees")
    assert any(dataset.pairs()[0].positive in text for text in asked.texts)
    assert asked.description["licence"] == "CC0"
    assert asked.description["datasets"][0]["name"] == dataset.name
    assert [job.source for job in fake.jobs if isinstance(job, IndexCorpus)] == ["2-batchtopk-512"]
    page = browser.get(training.get_absolute_url()).content.decode()
    for said in ("87.0%", "31.5", "93.0%", "notes.txt", "CC0"):
        assert said in page
    assert "Go on from" not in page
    listed = browser.get("/features/train/").content.decode()
    assert training.get_absolute_url() in listed


def test_conversations_are_written_once_and_kept_for_going_on(fake: FakeInference, browser: Client) -> None:
    facts = FACTS | {"trained": FACTS["trained"] | {"stopped_early": True}}
    fake.payloads["train_sae"] = {"source": "2-batchtopk-512", "facts": facts}
    training = begun(browser, chats="3")
    (first,) = trainings_of(fake)
    assert len(first.conversations) == 3
    assert all(chat[0].role == "user" and chat[1].content for chat in first.conversations)
    written = len(fake.requests)
    assert "Go on from about step 5" in browser.get(training.get_absolute_url()).content.decode()
    browser.post(f"{training.get_absolute_url()}go-on/")
    again = ended(training)
    assert again.job != training.job
    second = trainings_of(fake)[1]
    assert replace(second, id="") == replace(first, id="")  # so that the model side goes on with it
    assert len(fake.requests) == written


def test_a_training_that_failed_says_why_and_can_be_gone_on_with(fake: FakeInference, browser: Client) -> None:
    training = begun(browser, file=a_file())
    assert training.job
    Job.objects.filter(pk=training.job.pk).update(
        state=Job.State.FAILED, error_code="disk_full", error_message="Free space.", facts={"step": 41}
    )
    kept = browser.get(training.get_absolute_url()).content.decode()
    assert "87.0%" in kept  # what an earlier sitting kept is there still
    Training.objects.update(facts={})
    page = browser.get(training.get_absolute_url()).content.decode()
    assert "Free space." in page
    assert "Go on from about step 41" in page


def test_what_cannot_be_trained_is_refused_with_a_cure(fake: FakeInference, browser: Client) -> None:
    assert "Choose a dataset, a file, or conversations" in refused(browser)
    assert "out of range" in refused(browser, layer="400", chats="5")
    assert "already. Give this one another name" in refused(
        browser, file=a_file(), layer=str(a_source().layer), name=a_source().id.split("-", 1)[1]
    )
    assert "is not text in UTF-8" in refused(browser, file=SimpleUploadedFile("x.txt", b"\xff\xfe" * 2000))
    assert "has no text in it" in refused(browser, file=a_file(" "))
    assert "too few to train on" in refused(browser, file=a_file("A fox."))
    assert "small letters" in refused(browser, file=a_file(), name="../there")
    assert "Write a whole number" in refused(browser, file=a_file(), steps="none")


def test_only_an_administrator_trains_and_only_the_owner_sees_it(
    fake: FakeInference, browser: Client, browser_of: Any, stranger: User
) -> None:
    training = begun(browser, file=a_file())
    other = browser_of(stranger)
    assert "an administrator starts it" in other.get("/features/train/").content.decode()
    assert other.post("/features/train/", FORM | {"chats": "5"}).status_code == 403
    assert other.get(training.get_absolute_url()).status_code == 403
    stranger.is_staff = True
    stranger.save()
    assert other.get(training.get_absolute_url()).status_code == 404
    assert other.post(f"{training.get_absolute_url()}go-on/").status_code == 404


def test_the_form_says_how_long_it_takes(fake: FakeInference, browser: Client) -> None:
    said = browser.get("/features/train/estimate.json?layer=9&width=4096&steps=1000&batch=1024&characters=4300000")
    assert "the text once" in said.json()["says"]
    nothing = browser.get("/features/train/estimate.json?layer=9&width=4096&steps=1000&batch=1024")
    assert nothing.json()["says"] == "Choose what to train on."
    odd = browser.get("/features/train/estimate.json?layer=x&width=-1&steps=&batch=%C2%B2")
    assert odd.status_code == 200


def test_an_estimate_grows_with_everything_that_costs_time() -> None:
    model = replace(FakeInference().served("m"), d_model=576, dtype="float32", device="cpu")
    least = {"layer": 3, "width": 1024, "steps": 100, "batch": 256, "tokens": 10_000, "chats": 10}
    before = training_estimate.seconds(model, **least)
    for name in least:
        assert training_estimate.seconds(model, **(least | {name: 4 * least[name]})) > before, name
