"""The build page offers every method with its own parameters, a forecast, and refuses nonsense before any work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from inference.types import Forecast, OptimiseVector
from steering.accounts.models import User
from steering.datasets.models import Dataset, Example
from steering.jobs.models import Job
from steering.vectors import builds
from steering.vectors.methods import CATALOG, methods
from steering.vectors.models import Vector
from tests.fake_inference import FakeInference
from tests.steering.endings import ended
from tests.steering.test_vectors import make_dataset
from tests.steering.vector_files import make_vector, payload_of

pytestmark = pytest.mark.django_db(transaction=True)
CSS = Path(__file__).parents[2] / "static" / "css" / "vectors.css"
FOUND = {
    "layers": [{"layer": 9, "agreement": 0.1, "disagreeing": 0.25, "split_half": 0.4, "d_prime": 1.0, "auc": 0.7}],
    "layer": 9,
    "verdict": "uncertain",
    "sentence": "At layer 9 a quarter of the pairs disagree.",
    "disagreeing": [{"row": 2, "cosine": -0.31}],
    "pairs": 4,
    "read": [0, 1, 2, 3],
    "warnings": [{"code": "few", "message": "Only 4 pairs.", "rows": []}],
}


@pytest.fixture
def client(person: User, browser_of: Any, fake_inference: FakeInference) -> Client:
    return browser_of(person)


def asked(client: Client, fake: FakeInference, dataset: Dataset, **form: Any) -> Any:
    fake.payload = payload_of(make_vector())
    answer = client.post(reverse("vectors:build"), {"dataset": dataset.pk} | form)
    assert answer.status_code == 302, answer.context["form"].errors
    ended(Job.objects.get())
    return fake.jobs[0]


@pytest.mark.parametrize("key", [method.key for method in methods()])
def test_every_method_can_be_built_and_ends_in_the_library(
    key: str, client: Client, person: User, fake_inference: FakeInference
) -> None:
    request = asked(client, fake_inference, make_dataset(person), method=key, layers="4", pooling="last", steps="30")
    assert request.method == key
    assert Job.objects.get().error_message == ""
    assert Vector.objects.count() == 1


def test_the_picker_names_each_method_and_its_paper(client: Client, person: User) -> None:
    make_dataset(person)
    page = client.get(reverse("vectors:build")).content.decode()
    assert all(f'value="{m.key}"' in page and m.name in page and m.arxiv in page for m in methods())
    assert len(methods()) == len(CATALOG)


def test_only_a_methods_own_parameters_count(client: Client, person: User, fake_inference: FakeInference) -> None:
    request = asked(client, fake_inference, make_dataset(person), method="caa", pooling="last", steps="7", layers="3")
    assert (request.pooling, request.layers) == ("mean", (3,))
    assert "steps" not in builds.settings_of(Job.objects.get())


def test_only_a_methods_own_parameters_are_shown() -> None:
    """The style sheet hides what a method does not read."""
    rules = {
        param: set(re.findall(r'value="(\w+)"', keys))
        for keys, param in re.findall(r'\[name="method"\]:is\(([^)]*)\):checked\) \.of-(\w+)', CSS.read_text())
    }
    for param in {param for method in CATALOG for param in method.params}:
        others = {method.key for method in CATALOG if param not in method.params}
        assert rules.get(param, set()) == others, param


def test_an_optimised_vector_is_asked_for_with_pairs_as_datapoints(
    client: Client, person: User, fake_inference: FakeInference
) -> None:
    form = {"method": "promotion", "steps": "30", "seeds": "4", "form": "clamp", "target_loss": "2.5"}
    request = asked(client, fake_inference, make_dataset(person), **form)
    assert isinstance(request, OptimiseVector)
    assert (request.layer, request.steps, request.seeds, request.form, request.target_loss) == (12, 30, 4, "clamp", 2.5)
    assert (request.datapoints[0].promote, request.datapoints[0].suppress) == (("calm 0",), ("angry 0",))


def test_several_vectors_of_one_build_are_all_kept(client: Client, person: User, fake_inference: FakeInference) -> None:
    found = [payload_of(make_vector(seed=seed))["vector"] for seed in (1, 2)]
    fake_inference.payload = {"vectors": found}
    client.post(reverse("vectors:build"), {"dataset": make_dataset(person).pk, "method": "melbo", "count": "2"})
    job = ended(Job.objects.get())
    assert sorted(Vector.objects.values_list("name", flat=True)) == ["Calm 1", "Calm 2"]
    assert job.result_url == Vector.objects.get(name="Calm 1").get_absolute_url()


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"method": "promotion", "layer": "30"}, "this model has layers 0 to 29"),
        ({"method": "promotion", "steps": "0"}, "from 1 to 2000"),
        ({"method": "bipo", "learning_rate": "inf"}, "A learning rate goes from"),
        ({"method": "melbo", "layer": "20", "target_layer": "9"}, "Choose a later one"),
    ],
)
def test_nonsense_is_refused_before_any_work(form: dict[str, str], sentence: str, client: Client, person: User) -> None:
    page = client.post(reverse("vectors:build"), {"dataset": make_dataset(person).pk} | form).content.decode()
    assert sentence in page
    assert not Job.objects.exists()


def test_three_pairs_identical_sides_and_missing_prompts_are_refused(client: Client, person: User) -> None:
    url = reverse("vectors:build")
    three = make_dataset(person, pairs=3)
    same = make_dataset(person, pairs=6, name="Same")
    for example in same.examples.all():
        Example.objects.filter(pk=example.pk).update(negative=example.positive)
    bare = make_dataset(person, pairs=6, name="Bare")
    bare.examples.update(prompt="")
    for dataset, method, sentence in [
        (three, "pca", "has 3 pairs. PCA of differences needs at least 4"),
        (same, "mean_difference", "both sides are the same"),
        (bare, "bipo", "has pairs without a prompt"),
    ]:
        page = client.post(url, {"dataset": dataset.pk, "method": method}).content.decode()
        assert sentence in page
    assert not Job.objects.exists()


@pytest.mark.parametrize("method", ["prompt_difference", "promotion", "melbo"])
def test_one_pair_is_enough_where_nothing_is_held_out(
    method: str, client: Client, person: User, fake_inference: FakeInference
) -> None:
    one = make_dataset(person, pairs=1)
    assert asked(client, fake_inference, one, method=method).method == method
    page = client.post(reverse("vectors:build"), {"dataset": one.pk, "method": method, "action": "forecast"})
    assert page.status_code == 200
    assert "A forecast needs at least 4" in page.content.decode()
    assert Job.objects.count() == 1


def test_examples_that_the_pairs_do_not_have_are_refused(
    client: Client, person: User, fake_inference: FakeInference
) -> None:
    four = make_dataset(person, pairs=4)
    form = {"dataset": four.pk, "method": "few_shot", "shots": "4"}
    assert "at most 3 of them" in client.post(reverse("vectors:build"), form).content.decode()
    assert not Job.objects.exists()
    assert asked(client, fake_inference, four, method="few_shot").shots == 3


def test_melbo_needs_no_prompts_and_no_sides(client: Client, person: User, fake_inference: FakeInference) -> None:
    bare = make_dataset(person)
    bare.examples.update(prompt="", negative="x", positive="x")
    request = asked(client, fake_inference, bare, method="melbo")
    assert [point.prompt for point in request.datapoints] == ["x"]


def test_a_forecast_shows_the_pairs_that_disagree_and_builds_with_the_same_settings(
    client: Client, person: User, fake_inference: FakeInference
) -> None:
    dataset = make_dataset(person)
    fake_inference.payload = FOUND
    form = {"dataset": dataset.pk, "method": "pca", "layers": "9", "action": "forecast"}
    answer = client.post(reverse("vectors:build"), form)
    job = ended(Job.objects.get())
    page = client.get(answer["Location"])
    text = page.content.decode()
    assert isinstance(fake_inference.jobs[0], Forecast)
    assert all(part in text for part in ("uncertain", "a quarter of the pairs disagree", "calm 2", "−0.31", "25 %"))
    assert not Vector.objects.exists()
    fake_inference.payload = payload_of(make_vector())
    client.post(reverse("vectors:build"), page.context["fields"])
    built = Job.objects.exclude(pk=job.pk).get()
    assert (built.kind, built.request["method"], built.request["layers"]) == ("create_vector", "pca", [9])
    ended(built)


def test_a_running_optimisation_carries_its_curve_to_the_page(client: Client, person: User) -> None:
    dataset = make_dataset(person)
    job = Job.objects.create(
        owner=person,
        kind="optimise_vector",
        title="t",
        state="running",
        request={"name": "x</script><b>", "dataset": str(dataset.pk), "dataset_name": "Calm", "dataset_version": 1}
        | {"method": "bipo", "settings": {"method": "bipo", "steps": 30}, "datapoints": 4},
        facts={"step": 2, "steps": 30, "loss": 1.5, "curve": [[1, 2.0], [2, 1.5]]},
    )
    page = client.get(reverse("vectors:building", args=[job.pk])).content.decode()
    assert '"curve": [[1, 2.0], [2, 1.5]]' in page
    assert "</script><b>" not in page
    assert client.get(reverse("jobs:status", args=[job.pk])).json()["facts"]["loss"] == 1.5


def test_a_window_is_asked_for_with_its_size(client: Client, person: User, fake_inference: FakeInference) -> None:
    request = asked(client, fake_inference, make_dataset(person), method="logistic", pooling="window", window="5")
    assert (request.pooling, request.window) == ("window", 5)
    wrong = client.post(reverse("vectors:build"), {"method": "logistic", "pooling": "window", "window": "0"})
    assert wrong.context["form"].errors["window"] == ["Write a whole number from 1 to 512."]
