"""Files of other programs: offered, read, shown before they are kept, and the recipe."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from inference.interchange import read, write
from inference.store import seal
from inference.types import ImportVector, SteeringVector
from steering.accounts.models import User
from steering.jobs.models import Job
from steering.vectors import exports, library
from steering.vectors.facts import summary_of
from steering.vectors.models import Vector, VectorDraft
from tests.fake_inference import FakeInference
from tests.steering.endings import ended
from tests.steering.rest import Program
from tests.steering.test_vectors import keep, make_dataset
from tests.steering.vector_files import file_of, make_vector, payload_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def client(person: User, browser_of: Any, fake_inference: FakeInference, monkeypatch: pytest.MonkeyPatch) -> Client:
    """The fake model is as wide as the tests' vectors."""
    served = fake_inference.served
    monkeypatch.setattr(fake_inference, "served", lambda *given: replace(served(*given), d_model=8, n_layers=4))
    browser: Client = browser_of(person)
    return browser


def upload(client: Client, data: bytes, name: str) -> Any:
    return client.post(reverse("vectors:upload"), {"file": SimpleUploadedFile(name, data)}, follow=True)


def stored(person: User | None, fake: FakeInference, **fields: Any) -> Vector:
    fake.vectors[make_vector().id] = file_of(make_vector())
    return keep(person, **fields)


# ---- export ----


@pytest.mark.parametrize(("format", "theirs"), [("gguf", {2: 2}), ("mechanex", {3: 2}), ("svec", {3: 2})])
def test_a_vector_is_offered_in_every_format(
    format: str, theirs: dict[int, int], client: Client, person: User, fake_inference: FakeInference
) -> None:
    vector = stored(person, fake_inference)
    page = client.get(vector.get_absolute_url() + "?open=export").content.decode()
    address = reverse("vectors:export", args=[vector.pk, format])
    assert address in page and '<details class="dropdown" id="export" open>' in page
    answer = client.get(address)
    loose = read(answer.content)
    assert answer["Content-Disposition"].startswith('attachment; filename="calm.')
    assert {n: ours for ours, n in loose.placed().theirs.items()} == theirs
    assert f"layer {next(iter(theirs))} is resid_post of layer 2" in answer["X-Steerboard-Site"]


def test_all_layers_or_some_are_exported_when_asked(
    client: Client, person: User, fake_inference: FakeInference
) -> None:
    address = reverse("vectors:export", args=[stored(person, fake_inference).pk, "gguf"])
    assert read(client.get(address + "?layers=all").content).directions.keys() == {1, 2, 3}
    assert read(client.get(address + "?layers=1,3").content).directions.keys() == {1, 3}
    for wrong in ("?layers=0", "?layers=9", "?layers=x"):
        assert client.get(address + wrong).status_code == 400
    assert client.get(reverse("vectors:export", args=[Vector.objects.get().pk, "pickle"])).status_code == 404


def test_a_recipe_builds_it_again(client: Client, person: User, fake_inference: FakeInference) -> None:
    dataset = make_dataset(person)
    vector = stored(person, fake_inference, dataset=dataset, dataset_version=3)
    recipe = json.loads(client.get(reverse("vectors:recipe", args=[vector.pk])).content)
    assert recipe["id"] == f"sha256:{vector.content_id}" and recipe["settings"]["layers"] == [0, 1, 2, 3]
    assert (recipe["dataset"]["version"], recipe["build"]["dataset"]) == (3, str(dataset.pk))
    fake_inference.payload = payload_of(make_vector())
    program = Program(person)
    assert program.post("vectors/build/", recipe["build"])[0] == 202
    page = client.get(recipe["again"]).content.decode()
    assert f'value="{dataset.pk}" ' in page and 'value="0, 1, 2, 3"' in page
    assert recipe["again"] == exports.again_url(vector)


def test_without_its_dataset_a_recipe_says_so(client: Client, person: User, fake_inference: FakeInference) -> None:
    recipe = exports.recipe_of(stored(person, fake_inference))
    assert recipe["build"] is None and recipe["again"] is None


def trained(**settings: Any) -> SteeringVector:
    """As the model side leaves it: one layer, its settings and curve in the provenance."""
    whole = make_vector()
    asked = {"form": "add", "rank": 1, "steps": 0, "seeds": 1, "seed": 0, "noise": 0.0, "kl_steps": 0, "max_kl": 0.05}
    facts = {
        "settings": asked | settings,
        "kl_texts": [],
        "used": {"steps": 50, "learning_rate": 0.05, "init_norm": 0.1, "max_norm": 0.5, "target_layer": None},
        "curve": [[0, 5.0], [3, 1.25]],
        "norms": {"2": 12.0},
        "apply": {"operation": settings.get("form", "add"), "strength": 12.0, "unit": "raw", "layer": 2},
        "warnings": ["Pair 3 has the same text on both sides."],
    }
    one = replace(whole, id="", directions=whole.directions[2:3], stats=(), residual_norms={2: 40.0})
    return seal(replace(one, method="optimised_promotion", provenance=facts))


def test_a_recipe_of_an_optimised_vector_restores_every_setting(
    client: Client, person: User, fake_inference: FakeInference
) -> None:
    dataset = make_dataset(person)
    asked = {"form": "clamp", "seeds": 4, "seed": 7, "steps": 30, "learning_rate": 0.02, "target_loss": 1.5}
    vector = library.vector_keep(
        owner=person, name="trained", summary=summary_of(trained(**asked)), dataset=dataset, dataset_version=1
    )
    recipe = exports.recipe_of(vector)
    assert recipe["settings"] == {"method": "promotion", "layer": 2, "max_norm": 0.5} | asked
    assert (recipe["endpoint"], recipe["recommended"]["operation"]) == ("/api/v1/vectors/optimise/", "clamp")
    program = Program(person)
    fake_inference.payload = payload_of(make_vector())
    assert program.post(recipe["endpoint"], recipe["build"])[0] == 202
    ended(Job.objects.get())
    form = client.get(recipe["again"]).context["form"]
    assert {name: form[name].value() for name in asked} == {name: str(value) for name, value in asked.items()}
    assert (form["method"].value(), form["layer"].value()) == ("promotion", "2")


def test_a_setting_that_the_build_page_lacks_leaves_the_api(person: User, fake_inference: FakeInference) -> None:
    dataset = make_dataset(person)
    summary = summary_of(trained(batch=2, init_norm=0.3))
    vector = library.vector_keep(owner=person, name="x", summary=summary, dataset=dataset, dataset_version=1)
    recipe = exports.recipe_of(vector)
    assert recipe["again"] is None and recipe["build"]["batch"] == 2
    fake_inference.payload = payload_of(make_vector())
    assert Program(person).post(recipe["endpoint"], recipe["build"])[0] == 202
    ended(Job.objects.get())


def test_recipes_of_combinations_and_imports_say_what_they_are(person: User, fake_inference: FakeInference) -> None:
    terms = [{"weight": 2.0, "name": "calm"}, {"weight": -1.0, "name": "angry"}]
    for method, provenance, says in (
        ("combination", {"operation": "sum", "terms": terms}, "sum of 2 × “calm”, -1 × “angry”"),
        ("imported", {"imported": {"format": "gguf", "notes": []}}, "file of another program"),
    ):
        made = seal(replace(make_vector(), id="", method=method, n_pairs=0, provenance=provenance))
        recipe = exports.recipe_of(library.vector_keep(owner=person, name="x", summary=summary_of(made)))
        assert says in recipe["says"]
        assert (recipe["settings"], recipe["build"], recipe["again"]) == ({}, None, None)


@pytest.mark.parametrize(("form", "says"), [("clamp", "clamp 0.30×"), ("add", "0.30×")])
def test_a_trained_vector_says_how_it_is_applied_and_shows_its_curve(
    form: str, says: str, client: Client, person: User, fake_inference: FakeInference
) -> None:
    vector = library.vector_keep(owner=person, name="x", summary=summary_of(trained(form=form)))
    page = client.get(vector.get_absolute_url())
    text = page.content.decode()
    assert says in text and "[3, 1.25]" in text and "Pair 3 has the same text" in text and "How it was found" in text
    assert {"repeng", "transformers"} & {s.language for s in page.context["snippets"]} == (
        set() if form == "clamp" else {"repeng", "transformers"}
    )
    played = client.get(f"{reverse('playground:home')}?vector={vector.pk}").context["page"]
    assert played["settings"]["lanes"][-1]["interventions"][0]["operation"] == form


# ---- import ----


def test_a_file_of_another_program_is_shown_before_it_is_kept(
    client: Client, person: User, fake_inference: FakeInference
) -> None:
    data = write(make_vector(), "svec", (), hint="llama").data
    page = upload(client, data, "Calm words.svec").content.decode()
    draft = VectorDraft.objects.get()
    assert (draft.owner, draft.name, bytes(draft.data)) == (person, "Calm words", data)
    assert not Vector.objects.exists() and not Job.objects.exists()
    for said in ("IBM activation-steering", "input of block L", "resid_post of layer 2", "it will be measured"):
        assert said in page
    fake_inference.payload = payload_of(make_vector())
    answer = client.post(draft.get_absolute_url(), {"name": "Calm", "layer": "2", "strength": "1.5"})
    job = ended(Job.objects.get())
    request: Any = fake_inference.jobs[0]
    assert isinstance(request, ImportVector) and answer["Location"] == job.get_absolute_url()
    assert (request.layers, request.recommended_layer, request.strength) == ((0, 1, 2, 3), 2, 1.5)
    assert request.source["notes"] == ["This file's layer 3 is resid_post of layer 2 in Steerboard."]
    assert request.source["layers"] == {"1": 0, "2": 1, "3": 2, "4": 3}
    assert (job.state, job.result_url) == ("succeeded", Vector.objects.get().get_absolute_url())
    assert Vector.objects.get().name == "Calm" and not VectorDraft.objects.exists()
    assert client.get(job.get_absolute_url()).status_code == 200


def test_what_layers_mean_must_be_told_where_the_file_does_not(
    client: Client, person: User, fake_inference: FakeInference
) -> None:
    import numpy as np
    from safetensors.numpy import save

    upload(client, save({"layer.2": np.ones(8, np.float32)}), "other.safetensors")
    draft = VectorDraft.objects.get()
    told = {"name": "Other", "strength": "1"}
    assert "Say which" in client.post(draft.get_absolute_url(), told).content.decode()
    fake_inference.payload = payload_of(make_vector())
    assert client.post(draft.get_absolute_url(), told | {"site": "resid_pre"}).status_code == 302
    ended(Job.objects.get())
    assert fake_inference.jobs[0].layers == (1,)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"layer": ""}, "Choose one of 0, 1, 2, 3"), ({"layer": "7"}, "no direction for layer 7"),
        ({"layer": "x"}, "whole number"), ({"strength": "0"}, "not 0"), ({"strength": "nan"}, "is a number"),
        ({"name": ""}, "needs a name"), ({"site": "mlp"}, "Select a valid choice"),
    ],
)  # fmt: skip
def test_a_form_that_says_too_little_keeps_nothing(told: dict[str, str], sentence: str, client: Client) -> None:
    upload(client, write(make_vector(), "svec", ()).data, "calm.svec")
    draft = VectorDraft.objects.get()
    answer = client.post(draft.get_absolute_url(), {"name": "Calm", "layer": "2", "strength": "1"} | told)
    assert answer.status_code == 200 and sentence in answer.content.decode()
    assert not Job.objects.exists() and VectorDraft.objects.exists()


def test_a_vector_of_another_width_is_refused_before_any_work(
    person: User, browser_of: Any, fake_inference: FakeInference
) -> None:
    client = browser_of(person)
    page = upload(client, write(make_vector(), "gguf", hint="qwen2").data, "calm.gguf").content.decode()
    assert "8 numbers wide" in page and "“qwen2”" in page
    answer = client.post(VectorDraft.objects.get().get_absolute_url(), {"name": "Calm", "strength": "1"})
    assert "576 wide" in answer.content.decode() and not Job.objects.exists()


def test_a_pickle_is_refused_with_the_way_to_convert(client: Client) -> None:
    page = upload(client, b"PK\x03\x04" + b"\0" * 50, "x.pt").content.decode()
    assert "torch.load" in page and "weights_only=True" in page and not VectorDraft.objects.exists()


def test_hostile_files_are_shown_as_text(client: Client) -> None:
    data = json.dumps({"model_type": "<script>alert(1)</script>", "directions": {"1": [1.0] * 8}}).encode()
    page = upload(client, data, "<img src=x>.svec").content.decode()
    assert "<script>alert" not in page and "&lt;script&gt;" in page and "<img src=x>" not in page


def test_of_a_persons_drafts_the_latest_are_kept(client: Client) -> None:
    for _ in range(7):
        upload(client, write(make_vector(), "gguf").data, "calm.gguf")
    assert VectorDraft.objects.count() == VectorDraft.KEPT_PER_PERSON


# ---- REST ----


def test_programs_import_and_export(person: User, client: Client, fake_inference: FakeInference) -> None:
    fake_inference.payload = payload_of(make_vector())
    program, data = Program(person), write(make_vector(), "gguf", ()).data
    status, job = program.upload("vectors/import/", data, "calm.gguf", layer="2", strength="0.5")
    assert (status, job["kind"], job["title"]) == (202, "import_vector", "Import “calm”")
    ended(Job.objects.get())
    fake_inference.vectors[make_vector().id] = file_of(make_vector())
    pk = Vector.objects.get().pk
    program.get(f"vectors/{pk}/download/", format="mechanex", layers="1,2")
    assert read(program.last.content).placed().theirs == {1: 2, 2: 3}
    assert "layer 2 is resid_post of layer 1" in program.last["X-Steerboard-Site"]
    assert program.get(f"vectors/{pk}/download/", format="gguf", layers="0")[0] == 400
    assert program.get(f"vectors/{pk}/recipe/")[1]["recipe"] == 1
    status, said = program.upload("vectors/import/", data, "calm.gguf")
    assert (status, said["error"]["code"]) == (400, "layer_needed")
