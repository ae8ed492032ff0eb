"""Presets with a fixed name: their data, what they say of themselves, and the command that makes them."""

from __future__ import annotations

import dataclasses
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from inference.errors import InvalidRequest
from inference.store import load
from steering import gateway
from steering.access.principal import Principal
from steering.api.openai.body import Fields
from steering.api.openai.catalog import entries
from steering.api.openai.parsing import parse_chat
from steering.api.openai.planning import plan
from steering.datasets import starter_catalog
from steering.datasets.measures import has_json, list_lines, score
from steering.datasets.models import digest_of
from steering.datasets.starter_catalog import Starter, catalogue, starter, starters
from steering.experiments import named
from steering.experiments.models import Experiment
from steering.presets.library import find, interventions_of
from steering.presets.models import Preset
from steering.presets.starters import NAMED, load_preset, load_starter_presets
from steering.vectors import starters as vector_files
from steering.vectors.evaluation import Chance, Evaluation
from steering.vectors.facts import summary_of
from steering.vectors.library import starter_keep
from steering.vectors.models import Vector
from tests.fake_inference import MODEL, FakeInference
from tests.inference import tiny
from tests.steering.vector_files import file_of, make_vector, payload_of

WRITTEN = tuple(entry for entry in catalogue() if entry not in starters())
RECORDED: dict[str, Any] = {
    "measure": {"says": "JSON that parses.", "unit": "share of answers"},
    "mode": "chat",
    "how": "Found at layers 1 to 2.",
    "layer": 2,
    "strength": 0.3,
    "n_prompts": 24,
    "repetition_penalty": 1.15,
    "base_mean": 0.25,
    "steered_mean": 0.5,
    "prompted_mean": 0.75,
    "ci": [0.1, 0.4],
    "coherence": 0.6,
    "null": {"count": 20, "low": 0.2, "high": 0.3, "beaten": 20, "p": 0.0476, "mean": 0.25, "means": []},
    "verdict": "works",
    "sentence": "On 24 held-out prompts it beats 20 of 20 random directions.",
}
NOT_BEATEN = RECORDED["null"] | {"beaten": 11, "p": 0.4762}


# ---- what was written ----


@pytest.mark.parametrize("entry", WRITTEN, ids=lambda entry: entry.slug)
def test_there_are_enough_pairs_and_prompts_and_none_is_used_twice(entry: Starter) -> None:
    pairs = entry.pairs()
    texts = [text.casefold() for pair in pairs for text in (pair.prompt, pair.positive, pair.negative)]
    prompts = [*entry.held_out_prompts, *entry.tuning_prompts, *(pair.prompt for pair in pairs)]
    assert len(pairs) >= 40 and len(entry.held_out_prompts) >= 24 and len(entry.tuning_prompts) >= 6
    assert len(set(texts)) == len(texts)
    assert len({prompt.casefold() for prompt in prompts}) == len(prompts)


@pytest.mark.parametrize("entry", WRITTEN, ids=lambda entry: entry.slug)
def test_no_text_is_another_with_a_word_exchanged(entry: Starter) -> None:
    texts = [side.split() for pair in entry.pairs() for side in (pair.positive, pair.negative)]
    for i, one in enumerate(texts):
        for other in texts[:i]:
            differing = sum(a != b for a, b in zip(one, other, strict=False)) + abs(len(one) - len(other))
            assert differing > 1, " ".join(one)


def test_brevity_is_proved_on_as_many_prompts() -> None:
    known = starter("brevity")
    assert known is not None and len(known.held_out_prompts) >= 24
    assert not {pair.prompt for pair in known.pairs()} & set(known.held_out_prompts)


def test_every_fixed_name_has_data() -> None:
    assert {entry.slug for entry in WRITTEN} | {"brevity"} == set(NAMED)


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ('{"a": 1}', True),
        ('Sure:\n```json\n["x", "y"]\n```', True),
        ('{not json} but then {"ok": true} follows', True),
        ('{"a": ', False),
        ("{} and []", False),
        ("[NaN]", False),
        ("no brackets", False),
        ("[" * 100_000, False),
    ],
)
def test_json_is_found_where_it_parses_and_says_something(text: str, there: bool) -> None:
    assert has_json(text) is there
    assert score(text, {"kind": "json"}) == float(there)


def test_points_of_a_list_are_counted_among_lines() -> None:
    assert list_lines("1. one\n2) two\n- three\n* four\n• five\n(a) six") == 1.0
    assert list_lines("Here you are:\n\n- one") == 0.5
    assert list_lines("**Bold** text\n1.5 litres\n-5 degrees\nplain") == 0.0
    assert score("", {"kind": "list_lines"}) == 0.0


# ---- what ships ----


def shipped(slug: str) -> dict[str, Any]:
    """Empty where nothing was measured beside chance yet."""
    path = vector_files.FOLDER / f"{slug}.evaluation.json"
    recorded = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return recorded if "null" in recorded else {}


@pytest.mark.parametrize("slug", [slug for slug in NAMED if shipped(slug)])
def test_what_ships_was_measured_beside_chance_with_the_data_that_ships(slug: str) -> None:
    recorded, known = shipped(slug), starter(slug)
    measured = Evaluation.of(recorded)
    assert measured is not None and measured.chance is not None and known is not None
    assert measured.chance.count >= 20 and measured.n_prompts == len(known.held_out_prompts)
    assert [sample["prompt"] for sample in measured.samples] == list(known.held_out_prompts)
    scores = [score(sample["steered"], known.measure) for sample in measured.samples]
    assert measured.steered_mean == pytest.approx(sum(scores) / measured.n_prompts, abs=1e-3)
    vector = load((vector_files.FOLDER / f"{slug}.safetensors").read_bytes())
    assert (vector.id, vector.model) == (recorded["vector"], recorded["model"])
    assert vector.dataset_digest == digest_of(known.pairs())
    works = measured.chance.is_beaten and measured.coherence is not None and measured.coherence >= 0.3
    sure = measured.ci[0] > 0 if known.measure["better"] == "higher" else measured.ci[1] < 0
    assert (measured.verdict == "works") == (works and sure)


@pytest.mark.parametrize("slug", NAMED)
def test_the_documents_say_what_was_measured(slug: str) -> None:
    lab = (Path(__file__).parents[2] / "docs/lab.md").read_text("utf-8")
    assert named._row(slug, Evaluation.of(shipped(slug))) in lab.splitlines()


# ---- what they say ----


def kept(slug: str, *, model: str = MODEL, **recorded: Any) -> Vector:
    vector = make_vector(model=model, seed=len(slug))
    return Vector.objects.create(
        owner=None, slug=slug, name=slug, content_id=vector.id, model_id=model, revision="fake",
        method=vector.method, summary=summary_of(vector), evaluation=RECORDED | recorded,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        ({}, "Works on SmolLM2-135M-Instruct: it beats its null band."),
        ({"verdict": "fails", "null": NOT_BEATEN}, "Does not beat its null band on SmolLM2-135M-Instruct: take what"),
        ({"verdict": "weak", "null": NOT_BEATEN}, "Does not beat its null band on SmolLM2-135M-Instruct: take what"),
        ({"verdict": "weak", "ci": [-0.1, 0.4]}, "Weak on SmolLM2-135M-Instruct: it beats its null band, but the int"),
        ({"verdict": "fails", "coherence": 0.1}, "Does not work on SmolLM2-135M-Instruct: it beats its null band, but"),
    ],
)
def test_a_preset_says_first_what_was_measured(recorded: dict[str, Any], said: str, db: None) -> None:
    preset = load_preset(kept("json_compliance", **recorded))
    assert preset is not None
    assert preset.description[:110].startswith(f"Answers in JSON when asked to. {said}"[:110])
    assert "0.50 share of answers steered, 0.25 base" in preset.description
    assert "0.75 by the same wish as a system prompt" in preset.description
    assert "0.20 to 0.30 by 20 random directions" in preset.description
    assert preset.parsed.sampling == {"repetition_penalty": 1.15}


@pytest.mark.usefixtures("db")
def test_one_that_fails_is_there_and_is_found_by_its_name_and_never_without_its_verdict(
    person: Any, browser_of: Any, fake_inference: FakeInference
) -> None:
    vector = kept("json_compliance", verdict="fails", null=NOT_BEATEN)
    [preset] = load_starter_presets()
    assert find(person, MODEL, "json_compliance") == preset
    model = gateway.call(fake_inference.describe())
    [intervention] = interventions_of(preset, model)
    assert (intervention.vector_id, intervention.layers, intervention.strength) == (vector.content_id, (2,), 0.3)
    browser: Client = browser_of(person)
    for path in ("/presets/", f"/presets/{preset.pk}/"):
        page = browser.get(path).content.decode()
        assert "not shown to work" in page and "Does not beat its null band" in page


@pytest.mark.django_db(transaction=True)
def test_a_call_to_v1_steers_with_it_and_the_list_of_models_has_its_verdict(
    person: Any, fake_inference: FakeInference
) -> None:
    vector = kept("refusal_strength", verdict="fails", null=NOT_BEATEN)
    load_starter_presets()
    who = Principal(person)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "steering_preset": "refusal_strength"}
    planned = plan(who, parse_chat(Fields(body)), "call-1")
    [intervention] = planned.requests[0].interventions
    assert (planned.preset, intervention.vector_id) == ("refusal_strength@1.0", vector.content_id)
    listed = next(entry for entry in entries(who) if entry["id"].endswith("::refusal_strength@1.0"))
    assert listed["verdict"] == "fails" and "Does not beat its null band" in listed["description"]


@pytest.mark.usefixtures("db")
def test_a_starter_without_a_fixed_name_is_left_out_unless_it_works() -> None:
    kept("calm", verdict="fails")
    assert load_starter_presets() == []


@pytest.mark.usefixtures("db")
def test_what_is_measured_anew_is_said_anew_of_the_same_version() -> None:
    vector = kept("tone_control")
    first = load_preset(vector)
    vector.evaluation = RECORDED | {"verdict": "fails", "null": NOT_BEATEN}
    second = load_preset(vector)
    assert first is not None and second is not None and first.pk == second.pk
    assert "Does not beat" in Preset.objects.get().description


@pytest.mark.django_db(transaction=True)
def test_every_model_has_its_own_under_the_same_name(person: Any, fake_inference: FakeInference) -> None:
    for model in (MODEL, "other-model"):
        starter_keep(slug="truthfulness", vector=make_vector(model=model), dataset=None, evaluation=RECORDED)
    assert Vector.objects.filter(slug="truthfulness").count() == 2
    load_starter_presets()
    assert find(person, "other-model", "truthfulness").model_id == "other-model"
    assert find(person, MODEL, "truthfulness").model_id == MODEL


@pytest.mark.django_db(transaction=True)
def test_a_starter_recommends_the_point_that_was_found(fake_inference: FakeInference) -> None:
    recorded = RECORDED | {"layer": 1, "strength": 0.25}
    vector = starter_keep(slug="truthfulness", vector=make_vector(), dataset=None, evaluation=recorded)
    assert (vector.facts.layer, vector.facts.strength) == (1, 0.25)
    assert vector.facts.reasons[0] == "Found at layers 1 to 2."


@pytest.mark.django_db(transaction=True)
def test_what_was_built_here_comes_before_what_ships_and_damage_is_left_out(
    settings: Any, tmp_path: Path, fake_inference: FakeInference, caplog: pytest.LogCaptureFixture
) -> None:
    settings.DATA_DIR = tmp_path
    shipped, here = tmp_path / "shipped", vector_files.folder_of("Org/Some Model")
    assert here == tmp_path / "presets" / "org-some-model"
    shipped.mkdir()
    here.mkdir(parents=True)
    (shipped / "brevity.safetensors").write_bytes(file_of(make_vector(seed=1)))
    (here / "brevity.safetensors").write_bytes(file_of(make_vector(seed=2)))
    (here / "tone_control.safetensors").write_bytes(b"damaged")
    [vector] = vector_files.load_starter_vectors(shipped)
    assert vector.content_id == make_vector(seed=2).id
    assert "tone_control.safetensors" in caplog.text


# ---- the command ----


READ = {"pooling": "mean", "span": "answer", "chat": True}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Starter:
    """json_compliance with few held-out prompts, as the only one that comes with Steerboard."""
    found = starter("json_compliance")
    assert found is not None
    few = dataclasses.replace(found, held_out_prompts=found.held_out_prompts[:4])
    monkeypatch.setattr(starter_catalog, "catalogue", lambda: (few,))
    return few


@pytest.fixture
def ready(fake_inference: FakeInference, known: Starter, settings: Any, tmp_path: Path, db: None) -> FakeInference:
    """A fake model that has built a vector from the pairs of json_compliance."""
    vector = make_vector(dataset_digest=digest_of(known.pairs()), provenance=READ)
    fake_inference.delay = 0.0
    fake_inference.payloads["create_vector"] = payload_of(vector)
    fake_inference.vectors[vector.id] = file_of(vector)
    settings.DATA_DIR = tmp_path
    return fake_inference


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> str:
    monkeypatch.setattr(gateway, "close", lambda timeout=10: None)  # the fixture ends it
    out = StringIO()
    try:
        call_command("presets", "--tokens=6", "--layers=2", "--steps=1", *args, stdout=out, stderr=out)
    except CommandError as error:
        raise CommandError(f"{out.getvalue()}{error}") from error
    return out.getvalue()


@pytest.mark.django_db(transaction=True)
def test_the_command_makes_a_preset_and_says_when_it_is_chance(
    ready: FakeInference, person: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run(monkeypatch, "json_compliance")
    assert "Does not beat its null band" in said  # the fake answers to every direction alike
    assert ready.jobs[0].chat  # type: ignore[union-attr]
    folder = tmp_path / "presets" / MODEL.lower()
    recorded = json.loads((folder / "json_compliance.evaluation.json").read_text())
    assert recorded["verdict"] == "fails" and recorded["null"]["count"] == 20 and recorded["version"] == "1.0"
    assert len(recorded["samples"]) == 4 and set(recorded["samples"][0]) >= {"prompt", "base", "steered", "prompted"}
    assert find(person, MODEL, "json_compliance").version == "1.0"
    # whoever comes with a fresh database has it from the files
    Experiment.objects.all().delete()
    Preset.objects.all().delete()
    Vector.objects.all().delete()
    vector_files.load_starter_vectors(tmp_path / "nothing")
    [preset] = load_starter_presets()
    assert preset.description in said


@pytest.mark.django_db(transaction=True)
def test_the_command_goes_on_and_measures_nothing_twice(
    ready: FakeInference, person: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(named, "evaluation_of", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(monkeypatch, "json_compliance")
    asked, built = len(ready.requests), len(ready.jobs)
    run(monkeypatch, "json_compliance")
    assert len(ready.requests) == asked
    assert [job.kind for job in ready.jobs[built:]].count("create_vector") == 0
    assert "measured before" in run(monkeypatch, "json_compliance")
    assert "finding its point" in run(monkeypatch, "json_compliance", "--again")
    assert [str(preset) for preset in Preset.objects.all()] == ["json_compliance@1.0"]
    table = run(monkeypatch, "--table")
    assert "| `json_compliance` | L" in table and "| `brevity` | | | | | | | | not measured yet |" in table


@pytest.mark.django_db(transaction=True)
def test_a_vector_that_is_to_be_read_otherwise_is_built_anew(
    ready: FakeInference, known: Starter, person: Any, tmp_path: Path
) -> None:
    def measured(**reading: Any) -> int:
        effort = named.Effort(layers=2, steps=1, tokens=6)
        model = gateway.model_info()
        before = len(ready.jobs)
        named.measured(known.slug, owner=person, model=model, folder=tmp_path, effort=effort, reading=reading, say=str)
        return [job.kind for job in ready.jobs[before:]].count("create_vector")

    assert (measured(chat=True), measured(chat=True)) == (1, 0)
    window = {"pooling": "window", "window": 4, "chat": False}
    read = make_vector(seed=6, dataset_digest=digest_of(known.pairs()), provenance=window)
    ready.payloads["create_vector"], ready.vectors[read.id] = payload_of(read), file_of(read)
    assert (measured(**window), measured(**window)) == (1, 0)
    assert measured(**window | {"window": 5}) == 1
    job = next(job for job in ready.jobs if job.kind == "create_vector" and job.pooling == "window")  # type: ignore[union-attr]
    assert (job.window, job.chat) == (4, False)  # type: ignore[union-attr]


@pytest.mark.django_db(transaction=True)
def test_a_vector_that_changed_is_a_new_version(
    ready: FakeInference, known: Starter, person: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, "json_compliance")
    other = make_vector(seed=5, dataset_digest=digest_of(known.pairs()), provenance=READ)
    ready.payloads["create_vector"] = payload_of(other)
    ready.vectors[other.id] = file_of(other)
    Vector.objects.update(revision="older")
    run(monkeypatch, "json_compliance")
    assert [str(preset) for preset in Preset.objects.all()] == ["json_compliance@1.1"]
    assert Preset.objects.get().vectors.get().content_id == other.id


@pytest.mark.usefixtures("db")
def test_a_preset_that_was_there_keeps_its_point(ready: FakeInference, person: Any) -> None:
    model = gateway.call(ready.describe())
    vector = kept("brevity", layer=1, strength=0.3, null=None)
    found = named.find_for(vector, model, named.Effort())
    assert (found.layers, found.most / 2, found.steps) == ((1,), 0.3, 1)
    new = kept("json_compliance")
    new.evaluation = {}
    assert named.find_for(new, model, named.Effort(layers=2)).layers == (1, 2)


def test_a_name_that_does_not_exist_is_refused_with_the_nearest(
    ready: FakeInference, person: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match="Did you mean truthfulness"):
        run(monkeypatch, "truthfullness")


@pytest.mark.usefixtures("db")
def test_only_the_model_that_ships_may_be_shipped(ready: FakeInference) -> None:
    kept("calm")
    model = gateway.call(ready.describe())
    assert named.ship_folder(model) == vector_files.FOLDER
    with pytest.raises(InvalidRequest, match="Leave --ship out"):
        named.ship_folder(dataclasses.replace(model, id="other"))


@pytest.mark.django_db(transaction=True)
def test_the_command_on_a_real_engine(
    person: Any, known: Starter, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny random model: whatever comes out is said, and the preset is there."""
    from inference.client import connect

    monkeypatch.setitem(tiny.SHAPE, "max_position_embeddings", 2048)
    folder = tiny.save("llama", tmp_path / "tiny")
    settings.DATA_DIR = tmp_path
    client = connect(f"inprocess://{folder}", data_dir=tmp_path, dtype="float32")
    gateway.set_inference(client)
    try:
        said = run(monkeypatch, "json_compliance", "--tokens=16", "--steps=3")
        model = gateway.model_info(timeout=10)
        preset = find(person, model.id, "json_compliance")
        [intervention] = interventions_of(preset, model)
        assert intervention.layers[0] in range(4) and preset.description in said
        measured = Evaluation.of(Vector.objects.get(slug="json_compliance", model_id=model.id).evaluation)
        assert measured is not None and isinstance(measured.chance, Chance)
    finally:
        gateway.call(client.close(), 30)
        gateway.set_inference(None)
