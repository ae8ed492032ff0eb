from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from inference.errors import Busy, InvalidRequest, NotFound
from inference.types import Event, Failed, GenerationRequest, Score
from steering import gateway
from steering.access.models import LedgerEntry
from steering.datasets.behaviours import BEHAVIOURS, WITHOUT_WORDS, WORTH
from steering.datasets.models import Dataset
from steering.datasets.starter_catalog import load_starter_datasets
from steering.experiments import asking, defaults
from steering.experiments.management.commands import experiment as command
from steering.experiments.models import Experiment, Measurement, Point
from steering.experiments.runner import experiment_cancel, experiment_resume
from steering.experiments.settings import Evaluate, check
from steering.presets.models import Preset
from steering.vectors.models import Vector
from tests.fake_inference import FakeInference
from tests.steering.endings import ended
from tests.steering.experiments import PROMPTS, STRENGTHS, TEN, a_find, a_sweep, begin, carried
from tests.steering.play import keep_vector

pytestmark = pytest.mark.django_db(transaction=True)
OPTIONS = ("layer", "strength", "layers", "strengths", "floor", "tokens", "directions", "measure", "concept")


@pytest.fixture
def vector(person: Any) -> Vector:
    return keep_vector(person)


@pytest.fixture
def fake(fake_inference: FakeInference) -> FakeInference:
    fake_inference.delay = 0.0
    return fake_inference


def test_a_sweep_keeps_every_point_with_its_text_and_scores(person: Any, vector: Vector, fake: FakeInference) -> None:
    experiment = carried(begin(person, a_sweep(vector), fake))
    assert (experiment.state, experiment.error_message) == ("succeeded", "")
    assert experiment.done == experiment.total == 5 * len(PROMPTS)
    assert len(experiment.findings["cells"]) == 4
    assert experiment.points.get(group="v0-add-L2-0.2", place=1).measurement.result["text"].isupper()
    assert experiment.points.exclude(scores__behaviour=None).count() == experiment.done
    entry = LedgerEntry.objects.get(work=f"experiment:{experiment.pk}")
    assert (entry.state, entry.completion_tokens) == ("settled", experiment.completion_tokens)


def test_an_answer_without_a_word_is_measured_and_not_read(
    person: Any, vector: Vector, fake: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = asking.Asking.complete

    async def silent(self: asking.Asking, ask: Any) -> dict[str, Any]:
        return await complete(self, ask) | ({"text": "", "tokens": 0} if ask.place == 1 else {})

    monkeypatch.setattr(asking.Asking, "complete", silent)
    experiment = carried(begin(person, a_sweep(vector), fake))
    assert (experiment.state, experiment.error_message) == ("succeeded", "")
    assert experiment.points.filter(place=1).exclude(scores__behaviour=None).count() == 5
    items = [item for job in fake.jobs if isinstance(job, Score) for item in job.items]
    assert items
    assert all(all(item.continuations) for item in items)  # the engine refuses an empty one


def test_what_was_asked_before_is_not_asked_again(person: Any, vector: Vector, fake: FakeInference) -> None:
    carried(begin(person, a_sweep(vector), fake))
    assert len(fake.requests) == 3 * len(PROMPTS)  # strength 0 is the base
    again = carried(begin(person, a_sweep(vector), fake))
    assert (again.state, again.done) == ("succeeded", 5 * len(PROMPTS))
    assert len(fake.requests) == 3 * len(PROMPTS)
    assert again.completion_tokens == 0


def test_two_people_never_share_what_the_model_answered(
    person: Any, stranger: Any, vector: Vector, fake: FakeInference
) -> None:
    Vector.objects.update(owner=None, slug="shared")
    carried(begin(person, a_sweep(vector), fake))
    asked = len(fake.requests)
    carried(begin(stranger, a_sweep(vector), fake))
    assert len(fake.requests) == 2 * asked


def test_find_proves_its_point_beside_chance_and_prompting(person: Any, vector: Vector, fake: FakeInference) -> None:
    experiment = carried(begin(person, a_find(vector), fake))
    assert experiment.state == "succeeded"
    assert experiment.findings["null"]["count"] == 20
    assert {"base", "steered", "prompting"} <= experiment.findings.keys()


class LosesWorkers(FakeInference):
    """Every third completion loses its worker the first time it is asked for."""

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
        if len(self.requests) % 3 == 2:
            self.requests.append(request)
            yield Failed(request.id, 0, "unavailable", "worker_lost", "The worker is gone.", 0.01)
            return
        async for event in super().generate(request):
            yield event


def test_a_thousand_points_survive_the_loss_of_workers_with_none_missing_or_doubled(
    person: Any, vector: Vector
) -> None:
    fake = LosesWorkers(delay=0.0)
    gateway.set_inference(fake)
    settings = a_sweep(vector, layers=(0, 1, 2), strengths=STRENGTHS, prompts=TEN)
    experiment = carried(begin(person, settings, fake), timeout=120)
    gateway.set_inference(None)
    assert (experiment.state, experiment.error_message) == ("succeeded", "")
    assert settings.points == experiment.points.count() == experiment.done == 1000
    places = set(Point.objects.values_list("group", "place"))
    assert len(places) == 1000
    assert Measurement.objects.filter(kind="complete").count() == 1000


def test_a_failure_that_does_not_go_by_ends_it_with_a_sentence_and_it_can_be_resumed(
    person: Any, vector: Vector, fake: FakeInference
) -> None:
    class Breaks(FakeInference):
        async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
            yield Failed(request.id, 0, "invalid_request", "wrong_size", "The direction has 8 numbers.", None)

    good = fake
    gateway.set_inference(Breaks(delay=0))
    experiment = carried(begin(person, a_sweep(vector), good))
    assert (experiment.state, experiment.error_code) == ("failed", "wrong_size")
    assert not LedgerEntry.objects.open().exists()
    gateway.set_inference(good)
    assert experiment_resume(experiment)
    assert ended(experiment).state == "succeeded"


def test_cancelling_keeps_what_was_measured(person: Any, vector: Vector, fake: FakeInference) -> None:
    experiment = begin(person, a_sweep(vector), fake)
    assert experiment_cancel(experiment)
    assert not experiment_cancel(experiment)
    assert carried(experiment).state == "cancelled"
    assert LedgerEntry.objects.get().state == "settled"


def test_one_whose_process_is_gone_is_taken_up_and_one_that_is_carried_is_not(
    person: Any, vector: Vector, fake: FakeInference
) -> None:
    experiment = begin(person, a_sweep(vector), fake)
    mine = Experiment.objects.filter(pk=experiment.pk)
    mine.update(carrier="elsewhere", state="running", heartbeat_at=timezone.now())
    assert carried(experiment).state == "running"
    mine.update(heartbeat_at=timezone.now() - timezone.timedelta(seconds=60))
    assert carried(experiment).state == "succeeded"


def test_a_lost_lease_writes_nothing_more(person: Any, vector: Vector, fake: FakeInference) -> None:
    class Steals(FakeInference):
        async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
            from asgiref.sync import sync_to_async

            await sync_to_async(Experiment.objects.update)(carrier="another", heartbeat_at=timezone.now())
            async for event in super().generate(request):
                yield event

    gateway.set_inference(Steals(delay=0))
    experiment = carried(begin(person, a_sweep(vector), fake))
    assert (experiment.state, experiment.carrier) == ("running", "another")
    assert Measurement.objects.count() == 0


def test_too_many_at_once_are_refused(person: Any, vector: Vector, fake: FakeInference) -> None:
    for _ in range(3):
        begin(person, a_sweep(vector), fake)
    with pytest.raises(Busy):
        begin(person, a_sweep(vector), fake)


def test_a_layer_that_the_vector_does_not_have_and_a_vector_of_others_are_refused(
    person: Any, stranger: Any, vector: Vector, fake: FakeInference
) -> None:
    with pytest.raises(InvalidRequest, match="has layers 0, 1, 2, 3"):
        begin(person, a_sweep(vector, layers=(9,)), fake)
    with pytest.raises(NotFound):
        begin(stranger, a_sweep(vector), fake)


def test_waiting_for_a_model_that_stays_away_ends(
    person: Any, vector: Vector, fake: FakeInference, monkeypatch: Any
) -> None:
    class Away(FakeInference):
        async def generate(self, request: GenerationRequest) -> AsyncIterator[Event]:
            yield Failed(request.id, 0, "unavailable", "no_worker", "No worker is there.", 0.01)

    monkeypatch.setattr(asking, "PATIENCE_SECONDS", 0.1)
    gateway.set_inference(Away(delay=0))
    experiment = carried(begin(person, a_sweep(vector), fake))
    assert (experiment.state, experiment.error_code) == ("failed", "no_worker")


# ---- pages ----


def test_the_list_offers_the_next_step(person: Any, vector: Vector, fake: FakeInference, browser_of: Any) -> None:
    page = browser_of(person).get("/experiments/").content.decode()
    assert f"/experiments/new/find/?vector={vector.pk}" in page


def filled_in(form: Any) -> dict[str, Any]:
    """What a browser would send of a form that nobody has changed."""
    return {field.name: field.value() for field in form if field.value() is not None and field.value() is not False}


@pytest.mark.parametrize("recipe", ["sweep", "find", "evaluate"])
def test_a_new_experiment_starts_with_what_is_filled_in(
    person: Any, vector: Vector, fake: FakeInference, browser_of: Any, recipe: str
) -> None:
    browser: Client = browser_of(person)
    form = browser.get(f"/experiments/new/{recipe}/").context["form"]
    sent = filled_in(form)
    told = browser.post(f"/experiments/estimate/{recipe}/", sent).json()
    assert told["problems"] == [] and told["points"] > 0
    answer = browser.post(f"/experiments/new/{recipe}/", sent)
    assert answer.status_code == 302, answer.context["form"].errors
    experiment = ended(Experiment.objects.get())
    assert (experiment.state, experiment.error_message) == ("succeeded", "")
    assert browser.get(answer["Location"]).status_code == 200


def test_a_behaviour_without_a_word_list_is_named_as_its_dataset_says(
    person: Any, vector: Vector, fake: FakeInference
) -> None:
    model = gateway.call(fake.describe())
    vector.dataset = Dataset.objects.create(owner=person, name="Pirates", description="")
    assert defaults.find_of(vector, model).behaviour.concept == "Pirates"
    vector.dataset.description = "the speech of pirates.\nWritten by hand."
    behaviour = defaults.find_of(vector, model).behaviour
    assert (behaviour.kind, behaviour.concept) == (WITHOUT_WORDS, "the speech of pirates")
    evaluation = defaults.evaluate_of(vector, model)
    assert evaluation.beside == ()  # naming is the measure itself, and there are no pairs to ask


@pytest.mark.parametrize("slug", sorted(BEHAVIOURS))
def test_a_starter_is_measured_as_its_calibration_says(
    person: Any, vector: Vector, fake: FakeInference, slug: str
) -> None:
    load_starter_datasets()
    vector.dataset = Dataset.objects.get(owner=None, slug=slug)
    evaluation = defaults.evaluate_of(vector, gateway.call(fake.describe()))
    assert evaluation.behaviour.kind not in ("naming", "judge")
    assert evaluation.behaviour.concept == evaluation.concept == BEHAVIOURS[slug].concept
    assert evaluation.beside == BEHAVIOURS[slug].also
    check(evaluation)


def test_the_command_takes_another_measure_and_another_name_for_it(
    person: Any, vector: Vector, fake: FakeInference
) -> None:
    model, given = gateway.call(fake.describe()), dict.fromkeys(OPTIONS)
    found = command.settings_of("find", vector, model, given | {"concept": "pirates"})
    assert (found.behaviour.kind, found.behaviour.concept) == ("naming", "pirates")
    judged = command.settings_of("evaluate", vector, model, given | {"measure": "judge"})
    assert isinstance(judged, Evaluate)
    assert (judged.behaviour.kind, judged.behaviour.concept, judged.concept) == ("judge", "calm", "calm")


def test_the_command_goes_on_with_what_a_killed_one_left(
    person: Any, vector: Vector, fake: FakeInference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "close", lambda: None)
    model = gateway.call(fake.describe())
    settings = command.settings_of("sweep", vector, model, dict.fromkeys(OPTIONS) | {"layers": [2], "tokens": 5})
    left = begin(person, settings, fake)
    how: dict[str, Any] = {"user": person.email, "layers": [2], "tokens": 5, "stdout": StringIO()}
    for _ in range(2):
        call_command("experiment", "sweep", str(vector.pk), **how)
    assert Experiment.objects.filter(state="succeeded").count() == Experiment.objects.count() == 2
    assert Experiment.objects.get(pk=left.pk).started_at is not None


def test_the_judge_is_offered_with_what_it_is_worth(
    person: Any, vector: Vector, fake: FakeInference, browser_of: Any
) -> None:
    browser = browser_of(person)
    page = browser.get("/experiments/new/evaluate/")
    assert page.context["form"]["kind"].value() == "naming"
    assert "no better than a coin" in page.content.decode()
    sent = filled_in(page.context["form"]) | {"kind": "judge", "beside": ["judge"]}
    told = browser.post("/experiments/estimate/evaluate/", sent).json()
    assert told["warnings"] == [WORTH["judge"]]
    answer = browser.post("/experiments/estimate/evaluate/", sent | {"beside": ["answers"]}).json()
    assert "There are no pairs to ask about" in answer["problems"][0]
    sent["beside"] = ["naming", "judge"]
    there = browser.post("/experiments/new/evaluate/", sent)["Location"]
    experiment = ended(Experiment.objects.get())
    assert {"naming", "judge"} <= experiment.findings.keys()
    again = browser.get(f"/experiments/new/evaluate/?from={experiment.pk}").context["form"]
    assert again["beside"].value() == ["naming", "judge"]
    assert "no better than a coin" in browser.get(there).content.decode()


def test_a_dose_that_breaks_text_is_warned_of_before(
    person: Any, vector: Vector, fake: FakeInference, browser_of: Any
) -> None:
    form = browser_of(person).get("/experiments/new/sweep/").context["form"]
    sent = filled_in(form)
    told = browser_of(person).post("/experiments/estimate/sweep/", sent | {"strengths": "0.2, 2"}).json()
    assert "fall apart" in told["warnings"][0]


def test_a_form_that_cannot_be_measured_says_why(
    person: Any, vector: Vector, fake: FakeInference, browser_of: Any
) -> None:
    answer = browser_of(person).post("/experiments/new/sweep/", {"vectors": str(vector.pk), "strengths": "much"})
    assert "is no list of strengths" in answer.content.decode()
    assert not Experiment.objects.exists()


def test_the_link_opens_it_for_whoever_is_signed_in_until_sharing_ends(
    person: Any, stranger: Any, vector: Vector, fake: FakeInference, browser_of: Any
) -> None:
    experiment = carried(begin(person, a_sweep(vector), fake))
    there, other = experiment.get_absolute_url(), browser_of(stranger)
    assert other.get(there).status_code == 404
    assert other.get(f"{there}?share=None").status_code == 404
    assert other.get(f"{there}?share=").status_code == 404
    browser_of(person).post(f"{there}share/", {"shared": "1"})
    experiment.refresh_from_db()
    link = f"?share={experiment.share}"
    for part in ("", "status/", "texts/", "export/csv/", "export/jsonl/", "export/json/"):
        assert other.get(f"{there}{part}{link}").status_code == 200
    for part in ("cancel/", "resume/", "share/", "preset/", "delete/"):
        assert other.post(f"{there}{part}{link}").status_code == 404
    assert Client().get(f"{there}{link}").status_code == 302
    browser_of(person).post(f"{there}share/", {})
    assert other.get(f"{there}{link}").status_code == 404


def test_a_cell_shows_its_texts_beside_the_base_and_becomes_a_preset(
    person: Any, vector: Vector, fake: FakeInference, browser_of: Any
) -> None:
    experiment = carried(begin(person, a_sweep(vector), fake))
    browser, there = browser_of(person), experiment.get_absolute_url()
    rows = browser.get(f"{there}texts/?group=v0-add-L2-0.2").json()["rows"]
    assert rows[0]["text"] == rows[0]["base"]["text"].upper()
    browser.post(f"{there}preset/", {"group": "v0-add-L2-0.2"})
    browser.post(f"{there}preset/", {"group": "v0-add-L1-0.2"})
    kept = {preset.version: preset.parsed.uses[0] for preset in Preset.objects.owned_by(person)}
    assert {version: (use.layer, use.strength) for version, use in kept.items()} == {"1.0": (2, 0.2), "1.1": (1, 0.2)}
    page = browser.post(f"{there}preset/", {"group": "nowhere"}, follow=True).content.decode()
    assert "has not been measured" in page


def test_exports_have_every_point_and_no_formulas(
    person: Any, vector: Vector, fake: FakeInference, browser_of: Any
) -> None:
    experiment = carried(begin(person, a_sweep(vector, prompts=("=1+1", "b", "c", "d")), fake))
    there = experiment.get_absolute_url()
    lines = browser_of(person).get(f"{there}export/jsonl/").content.decode().splitlines()
    assert len(lines) == experiment.done
    assert {json.loads(line)["strength"] for line in lines} == {None, 0.0, 0.2}
    table = browser_of(person).get(f"{there}export/csv/").content.decode()
    assert "'=1+1" in table and ",=1+1" not in table


def test_deleting_an_experiment_needs_a_yes(person: Any, vector: Vector, fake: FakeInference, browser_of: Any) -> None:
    experiment = carried(begin(person, a_sweep(vector), fake))
    there = reverse("experiments:delete", args=[experiment.pk])
    assert browser_of(person).get(there).status_code == 200
    assert Experiment.objects.exists()
    browser_of(person).post(there)
    assert not Experiment.objects.exists()


# ---- the API ----


@pytest.fixture
def api(person: Any, browser_of: Any) -> Client:
    from steering.access.keys import create_key

    _, secret = create_key(owner=person, name="Notebook", scopes=["jobs", "generate"])
    return Client(headers={"Authorization": f"Bearer {secret}"})


def test_the_api_runs_an_experiment_of_a_vectors_name_once_per_idempotency_key(
    api: Client, vector: Vector, fake: FakeInference
) -> None:
    body = {"recipe": "sweep", "vector": vector.name, "settings": {"strengths": [0.2], "layers": [1, 2]}}
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    first = api.post("/api/v1/experiments/", body, content_type="application/json", headers=headers)
    again = api.post("/api/v1/experiments/", body, content_type="application/json", headers=headers)
    assert (first.status_code, again.json()["id"]) == (201, first.json()["id"]), first.json()
    experiment = ended(Experiment.objects.get())
    shown = api.get(f"/api/v1/experiments/{experiment.pk}/").json()
    assert (shown["state"], len(shown["findings"]["cells"])) == ("succeeded", 2)
    results = api.get(f"/api/v1/experiments/{experiment.pk}/results/?group=v0-add-L1-0.2&limit=3").json()
    assert len(results["data"]) == 3 and results["total"] > 3
    assert api.post(f"/api/v1/experiments/{experiment.pk}/cancel/").json()["state"] == "succeeded"


def test_the_api_refuses_settings_that_it_does_not_know(api: Client, vector: Vector, fake: FakeInference) -> None:
    body = {"recipe": "sweep", "vector": str(vector.pk), "settings": {"colour": "blue"}}
    answer = api.post("/api/v1/experiments/", body, content_type="application/json")
    assert answer.status_code == 400 and "colour" in answer.json()["error"]["message"]
