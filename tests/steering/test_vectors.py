from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from inference.types import ModelInfo, Pair
from steering.accounts.models import User
from steering.datasets.models import Dataset, Example
from steering.jobs.models import Job
from steering.vectors import builds, library
from steering.vectors.facts import Facts, summary_of
from steering.vectors.forms import BuildForm, parse_layers
from steering.vectors.models import Vector
from steering.vectors.starters import load_starter_vectors
from tests.fake_inference import FakeInference
from tests.steering.endings import ended
from tests.steering.vector_files import MODEL, file_of, make_vector, payload_of

pytestmark = pytest.mark.django_db(transaction=True)

EVALUATION = {
    "measure": {"description": "Calm words per 100."},
    "layer": 2,
    "strength": 0.3,
    "n_prompts": 10,
    "base_mean": -0.2,
    "steered_mean": 3.9,
    "prompted_mean": 2.1,
    "ci": [2.2, 5.9],
    "verdict": "works",
    "sentence": "Steering raised the score on 9 of 10 prompts.",
    "samples": [
        {
            "prompt": "Hi",
            "base": "<script>alert(1)</script>",
            "steered": "Breathe.",
            "prompted": "Calm.",
            "base_score": 0,
            "steered_score": 1,
        }
    ],
}


@pytest.fixture
def client(person: User, browser_of: Any, fake_inference: FakeInference) -> Client:
    return browser_of(person)


def make_dataset(owner: User | None, pairs: int = 4, **fields: Any) -> Dataset:
    dataset = Dataset.objects.create(owner=owner, **{"name": "Calm", "description": "Less anger.", **fields})
    Example.objects.bulk_create(
        Example(dataset=dataset, position=i, prompt="Hi", positive=f"calm {i}", negative=f"angry {i}")
        for i in range(pairs)
    )
    return dataset


def keep(owner: User | None, **fields: Any) -> Vector:
    vector = fields.pop("vector", None) or make_vector()
    return library.vector_keep(owner=owner, summary=summary_of(vector), **{"name": "calm", **fields})


def upload(client: Client, data: bytes, name: str = "calm.safetensors") -> Any:
    return client.post(reverse("vectors:upload"), {"file": SimpleUploadedFile(name, data)}, follow=True)


# ---- building ----


def test_a_build_ends_in_the_library(client: Client, person: User, fake_inference: FakeInference) -> None:
    dataset = make_dataset(None, slug="calm")
    fake_inference.payload = payload_of(make_vector())
    answer = client.post(reverse("vectors:build"), {"dataset": dataset.pk, "method": "mean_difference"})
    job = ended(Job.objects.get())
    vector = Vector.objects.get()
    assert answer["Location"] == reverse("vectors:building", args=[job.pk])
    assert (vector.owner, vector.name, vector.dataset, vector.dataset_version) == (person, "Calm", dataset, 1)
    assert vector.content_id == make_vector().id
    assert client.get(answer["Location"])["Location"] == vector.get_absolute_url()


def test_the_build_asks_for_what_the_form_says(client: Client, fake_inference: FakeInference) -> None:
    dataset = make_dataset(None, slug="calm")
    fake_inference.payload = payload_of(make_vector())
    form = {"dataset": dataset.pk, "method": "mean_difference", "pooling": "last", "chat": "on", "layers": "4, 8-10"}
    client.post(reverse("vectors:build"), form)
    ended(Job.objects.get())
    request: Any = fake_inference.jobs[0]
    assert (request.method, request.pooling, request.span, request.chat) == ("mean_difference", "last", "answer", True)
    assert request.layers == (4, 8, 9, 10)
    assert request.pairs[0] == Pair("calm 0", "angry 0", "Hi")
    assert request.dataset_digest == dataset.digest()


def test_a_build_whose_dataset_vanished_is_kept_without_it(
    client: Client, person: User, fake_inference: FakeInference
) -> None:
    dataset = make_dataset(person)
    fake_inference.payload, fake_inference.delay = payload_of(make_vector()), 0.1
    job = builds.vector_build(owner=person, dataset=dataset, name="calm", **BuildForm.DEFAULTS)
    dataset.delete()
    assert ended(job).state == "succeeded"
    assert Vector.objects.get().dataset is None


def test_a_failed_build_offers_the_same_settings_again(client: Client, person: User) -> None:
    dataset = make_dataset(person)
    request = {
        "name": "calm",
        "dataset": str(dataset.pk),
        "dataset_name": "Calm",
        "dataset_version": 1,
        "method": "caa",
        "pooling": "mean",
        "span": "answer",
        "chat": True,
        "layers": [4, 5],
        "pairs": 4,
    }
    job = Job.objects.create(
        owner=person,
        kind=builds.KIND,
        title="T",
        state="failed",
        request=request,
        error_code="disk_full",
        error_message="Free some space.",
    )
    page = client.get(reverse("vectors:building", args=[job.pk]))
    assert "Free some space." in page.content.decode()
    again = client.get(page.context["again"])
    form = again.context["form"]
    assert (form["method"].value(), form["layers"].value(), form["chat"].value()) == ("caa", "4, 5", "on")
    assert f'value="{dataset.pk}" data-name="Calm" data-about="Less anger." data-kind="pairs" selected' in (
        again.content.decode()
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dataset": ""}, "Choose the dataset"),
        ({"layers": "40"}, "this model has layers 0 to 29"),
        ({"layers": "last"}, "is not a layer"),
        ({"layers": "9-4"}, "Write 4-9"),
    ],
)
def test_a_bad_build_form_gets_a_sentence(change: dict[str, str], sentence: str, client: Client, person: User) -> None:
    form = {"dataset": str(make_dataset(person).pk), "method": "mean_difference"} | change
    page = client.post(reverse("vectors:build"), form).content.decode()
    assert sentence in page
    assert not Job.objects.exists()


def test_one_pair_is_too_few(client: Client, person: User) -> None:
    form = {"dataset": make_dataset(person, pairs=1).pk, "method": "caa"}
    assert "has 1 pair." in client.post(reverse("vectors:build"), form).content.decode()


def test_a_foreign_dataset_cannot_be_built_from(client: Client, stranger: User) -> None:
    make_dataset(None, slug="calm")
    form = {"dataset": make_dataset(stranger).pk, "method": "caa"}
    assert "Choose another" in client.post(reverse("vectors:build"), form).content.decode()
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("text", "layers"), [("", ()), ("all", ()), ("4", (4,)), ("8-10, 4", (4, 8, 9, 10)), ("3 – 5 9", (3, 4, 5, 9))]
)
def test_layers_are_read_from_numbers_and_ranges(text: str, layers: tuple[int, ...]) -> None:
    assert parse_layers(text, 30) == layers


# ---- library ----


def test_the_library_shows_own_vectors_and_starters_but_not_others(
    client: Client, person: User, stranger: User
) -> None:
    keep(person, name="mine")
    keep(None, name="starter one", slug="one")
    keep(stranger, name="theirs")
    keep(person, name="foreign", vector=make_vector(model="other/model"))
    page = client.get(reverse("vectors:list")).content.decode()
    assert page.count("made on other/model") == 1
    assert "mine" in page
    assert "starter one" in page
    assert "theirs" not in page


def test_the_library_is_filtered_by_name(client: Client, person: User) -> None:
    keep(person, name="calm e-mails")
    keep(person, name="brief")
    page = client.get(reverse("vectors:list"), {"q": "CALM"}).content.decode()
    assert "calm e-mails" in page
    assert "brief" not in page
    assert "Nothing matches" in client.get(reverse("vectors:list"), {"q": "zzz"}).content.decode()


def test_the_library_leads_with_own_vectors_then_starters_that_work(client: Client, person: User) -> None:
    for name, verdict in (("a", "fails"), ("b", "works"), ("c", "weak")):
        keep(None, name=f"{name} starter", slug=name, evaluation=EVALUATION | {"verdict": verdict})
    keep(person, name="own")
    names = [v["name"] for v in client.get(reverse("vectors:library")).json()["vectors"]]
    assert names == ["own", "b starter", "c starter", "a starter"]


def test_an_empty_library_offers_a_build(client: Client) -> None:
    assert "No vectors of your own yet" in client.get(reverse("vectors:list")).content.decode()


def test_the_playground_learns_what_it_needs(client: Client, person: User) -> None:
    vector = keep(person)
    keep(person, name="foreign", vector=make_vector(model="other/model"))
    usable = {v["name"]: v["usable"] for v in client.get(reverse("vectors:library")).json()["vectors"]}
    facts = client.get(reverse("vectors:json", args=[vector.pk])).json()
    assert usable == {"calm": True, "foreign": False}
    assert (facts["content_id"], facts["recommended_layer"], facts["layers"]) == (vector.content_id, 2, [0, 1, 2, 3])
    assert facts["residual_norms"]["2"] == 40.0
    assert "values" not in facts["summary"]["directions"][0]


# ---- one vector ----


def test_the_page_states_where_and_how_strongly_to_use_it(client: Client, person: User) -> None:
    page = client.get(keep(person).get_absolute_url()).content.decode()
    assert "L2 <small>resid_post</small>" in page
    assert "0.30× <small>2.4 raw</small>" in page  # 0.3 of 40, in lengths of 5
    assert "adds a norm of 12.0" in page
    assert "Layer 2 scores best." in page
    assert "from layer 3 on one token" in page
    assert f"?vector={Vector.objects.get().pk}" in page


def test_a_recorded_evaluation_is_shown_with_its_texts_escaped(client: Client, person: User) -> None:
    page = client.get(keep(person, evaluation=EVALUATION).get_absolute_url()).content.decode()
    assert "Steering raised the score on 9 of 10 prompts." in page
    assert "+4.10" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert(1)" not in page


def test_hostile_names_are_escaped_everywhere(client: Client, person: User) -> None:
    vector = keep(person, name="</script><img src=x onerror=alert(1)>", description="<b>bold</b>")
    for name in ("detail", "rename", "delete"):
        page = client.get(reverse(f"vectors:{name}", args=[vector.pk])).content.decode()
        assert "<img src=x" not in page
        assert "<b>bold" not in page


def test_a_vector_of_another_model_says_so_and_is_not_opened(client: Client, person: User) -> None:
    page = client.get(keep(person, vector=make_vector(model="other/model")).get_absolute_url()).content.decode()
    assert f"Made on other/model; this server runs {MODEL}." in page
    assert "Open in playground" not in page


def test_while_the_model_is_unknown_nothing_is_ruled_out(person: User) -> None:
    assert keep(person).usable_on(ModelInfo("loading", id=""))


def test_a_file_without_figures_still_has_a_page(client: Client, person: User) -> None:
    summary = summary_of(make_vector()) | {"stats": []}
    vector = library.vector_keep(owner=person, name="bare", summary=summary)
    assert "no figures by layer" in client.get(vector.get_absolute_url()).content.decode()
    assert Facts(summary).raw_strength is None


def test_renaming_changes_the_name_only(client: Client, person: User) -> None:
    vector = keep(person)
    client.post(reverse("vectors:rename", args=[vector.pk]), {"name": "calmer", "description": "New"})
    vector.refresh_from_db()
    assert (vector.name, vector.description, vector.content_id) == ("calmer", "New", make_vector().id)


def test_deleting_asks_first(client: Client, person: User) -> None:
    vector = keep(person)
    assert "Delete “calm”?" in client.get(reverse("vectors:delete", args=[vector.pk])).content.decode()
    assert Vector.objects.exists()
    client.post(reverse("vectors:delete", args=[vector.pk]))
    assert not Vector.objects.exists()


@pytest.mark.parametrize("name", ["detail", "download", "json", "rename", "delete"])
def test_strangers_get_404(
    name: str, person: User, stranger: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    url = reverse(f"vectors:{name}", args=[keep(person).pk])
    assert browser_of(stranger).get(url).status_code == 404
    assert browser_of(stranger).post(url, {"name": "x"}).status_code in (404, 405)
    assert Vector.objects.get().name == "calm"


def test_strangers_do_not_see_a_build(
    person: User, stranger: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    job = Job.objects.create(owner=person, kind=builds.KIND, title="T")
    assert browser_of(stranger).get(reverse("vectors:building", args=[job.pk])).status_code == 404


@pytest.mark.parametrize("name", ["rename", "delete"])
def test_starters_cannot_be_changed(name: str, client: Client) -> None:
    vector = keep(None, slug="calm")
    assert client.get(vector.get_absolute_url()).status_code == 200
    assert client.post(reverse(f"vectors:{name}", args=[vector.pk]), {"name": "x"}).status_code == 404


# ---- files ----


def test_what_is_uploaded_can_be_downloaded(client: Client) -> None:
    data = file_of(make_vector())
    upload(client, data, "Calm e-mails.safetensors")
    vector = Vector.objects.get()
    answer = client.get(reverse("vectors:download", args=[vector.pk]))
    assert (vector.name, answer.content) == ("Calm e-mails", data)
    assert answer["Content-Disposition"] == 'attachment; filename="calm-e-mails.safetensors"'


def test_an_uploaded_vector_finds_the_dataset_it_was_built_from(client: Client, person: User) -> None:
    dataset = make_dataset(person)
    upload(client, file_of(make_vector(dataset_digest=dataset.digest())))
    assert Vector.objects.get().dataset == dataset


def test_the_same_file_twice_is_one_vector(client: Client) -> None:
    upload(client, file_of(make_vector()))
    assert "was in the library already" in upload(client, file_of(make_vector())).content.decode()
    assert Vector.objects.count() == 1


def test_a_vector_of_another_model_is_accepted_and_marked(client: Client) -> None:
    page = upload(client, file_of(make_vector(model="other/model"))).content.decode()
    assert "Made on other/model" in page


@pytest.mark.parametrize("data", [b"PK\x03\x04" + b"\0" * 50, b"\x80\x04pickle", b"\xff" * 40, b""])
def test_what_is_no_vector_is_refused_with_a_sentence(data: bytes, client: Client) -> None:
    page = upload(client, data, "x.pt").content.decode()
    assert "The file was not added" in page
    assert not Vector.objects.exists()


def test_a_damaged_file_is_refused(client: Client) -> None:
    data = bytearray(file_of(make_vector()))
    data[-3] ^= 1
    assert "The file was not added" in upload(client, bytes(data)).content.decode()


def test_bytes_that_are_gone_are_explained(client: Client, person: User) -> None:
    answer = client.get(reverse("vectors:download", args=[keep(person).pk]))
    assert answer.status_code == 404
    assert "Upload it or build it again" in answer.content.decode()


# ---- starters ----


def starter_folder(folder: Path, *, seed: int = 0) -> Path:
    (folder / "calm.safetensors").write_bytes(file_of(make_vector(seed=seed)))
    (folder / "calm.evaluation.json").write_text(json.dumps(EVALUATION))
    return folder


def test_starters_are_loaded_with_dataset_and_evaluation(tmp_path: Path, fake_inference: FakeInference) -> None:
    dataset = make_dataset(None, slug="calm", name="Calm instead of anger")
    [vector] = load_starter_vectors(starter_folder(tmp_path))
    assert (vector.owner, vector.slug, vector.dataset) == (None, "calm", dataset)
    assert vector.evaluation["verdict"] == "works"
    assert vector.content_id in fake_inference.vectors


def test_loading_starters_again_changes_nothing_and_renews_what_changed(
    tmp_path: Path, fake_inference: FakeInference
) -> None:
    [first] = load_starter_vectors(starter_folder(tmp_path))
    [again] = load_starter_vectors(tmp_path)
    [renewed] = load_starter_vectors(starter_folder(tmp_path, seed=1))
    assert first.pk == again.pk == renewed.pk
    assert first.content_id != renewed.content_id
    assert Vector.objects.count() == 1
