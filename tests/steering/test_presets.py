from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.db.models import RestrictedError

from inference.errors import InvalidRequest, NotFound
from inference.types import ModelInfo, Positions
from steering.accounts.models import User
from steering.presets import library
from steering.presets.content import PresetContent, parse_content
from steering.presets.library import find, interventions_of, lent_to, listed, save
from steering.presets.models import Preset
from steering.presets.names import check_name, check_version, next_version, split_model_name
from steering.vectors.models import Vector
from steering.vectors.uses import VectorUse, resolve_uses
from tests.steering.play import keep_vector

MODEL = ModelInfo("ready", "SmolLM2-135M-Instruct", n_layers=30)
OTHER = ModelInfo("ready", "Qwen3-0.6B", n_layers=28)


@pytest.fixture
def vector(person: User) -> Vector:
    return keep_vector(person)


def using(vector: Vector, **changes: Any) -> PresetContent:
    use = VectorUse(str(vector.pk), strength=0.3, **changes)
    return PresetContent(uses=(use,), system_prompt="Be brief.", sampling={"temperature": 0.4})


def keep(owner: User | None, name: str = "calm", version: str = "1.0", **changes: Any) -> Preset:
    fields: dict[str, Any] = {"model": MODEL, "content": PresetContent(system_prompt="Be calm.")}
    return save(owner, name=name, version=version, **(fields | changes))


# ---- names ----


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("smollm2-135m-instruct::calm@1.0", ("smollm2-135m-instruct", "calm", "1.0")),
        ("smollm2-135m-instruct::calm", ("smollm2-135m-instruct", "calm", None)),
        ("smollm2-135m-instruct", ("smollm2-135m-instruct", None, None)),
        ("org/model@main", ("org/model@main", None, None)),
        ("org/model::mira-3/calm@2.1", ("org/model", "mira-3/calm", "2.1")),
        ("odd::model::calm", ("odd::model", "calm", None)),
        ("model::", ("model", "", None)),
    ],
)
def test_a_models_name_is_split_into_model_preset_and_version(text: str, parts: tuple[str, ...]) -> None:
    assert split_model_name(text) == parts


@pytest.mark.parametrize("name", ["", "Calm", "two words", "-calm", "a--b", "calm@1", "a/b", "x" * 41, "ruhig-é"])
def test_a_name_that_cannot_stand_in_a_models_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="lower-case letters"):
        check_name(name)


@pytest.mark.parametrize("version", ["", "1", "1.0.0", "v1.0", "01.0", "1.", "1.0 "])
def test_a_version_is_two_numbers(version: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a version"):
        check_version(version)


def test_the_next_version_counts_on_from_the_newest() -> None:
    assert [next_version([]), next_version(["1.9", "1.10", "0.3"])] == ["1.0", "1.11"]


# ---- what it may hold ----


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({}, "empty_preset"),
        ({"sampling": {"temperature": 9}}, "temperature"),
        ({"sampling": {"temperature": "hot"}}, "invalid_field"),
        ({"sampling": {"logprobs": True}}, "preset_sampling"),
        ({"uses": [{"vector": "calm"}]}, "bad_id"),
        ({"uses": [{"vector": "0" * 32, "strength": 1e5}]}, "strength"),
        ({"uses": [{"vector": "0" * 32, "on": False}]}, "use_off"),
        ({"uses": [{"vector": "0" * 32}] * 9}, "intervention_count"),
        ({"system_prompt": "x" * 40_001}, "too_long"),
        ({"lanes": []}, "invalid_field"),
    ],
)
def test_content_that_could_not_be_applied_as_it_stands_is_refused(content: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_content(content)
    assert refusal.value.code == code


def test_content_survives_the_database(person: User, vector: Vector) -> None:
    content = using(vector, layer=1, positions=Positions(prompt=False))
    kept = keep(person, content=content)
    assert Preset.objects.get(pk=kept.pk).parsed == content


def test_what_is_saved_names_its_layer_and_its_vector_in_one_way(person: User, vector: Vector) -> None:
    loose = PresetContent(uses=(VectorUse(vector.pk.hex.upper(), strength=0.3),))
    [use] = keep(person, content=loose).parsed.uses
    assert (use.vector, use.layer) == (str(vector.pk), 2)


def test_a_version_never_changes(person: User) -> None:
    keep(person)
    with pytest.raises(InvalidRequest, match="a version never changes"):
        keep(person)
    with pytest.raises(InvalidRequest, match="a version never changes"):
        keep(person, model=ModelInfo("ready", MODEL.id.upper()))
    assert str(keep(person, version="1.1")) == "calm@1.1"


def test_a_preset_holds_only_vectors_of_its_owner(person: User, stranger: User, vector: Vector) -> None:
    with pytest.raises(NotFound, match="not in your library"):
        keep(stranger, content=using(vector))
    keep(person, content=using(vector), shared=True)
    with pytest.raises(InvalidRequest, match="lent by a preset"):
        keep(stranger, content=using(vector))
    assert not Preset.objects.filter(owner=stranger).exists()


def test_a_preset_is_made_on_the_model_of_its_vectors(person: User, vector: Vector) -> None:
    with pytest.raises(InvalidRequest, match="was made on SmolLM2"):
        keep(person, content=using(vector), model=OTHER)


def test_a_layer_that_the_vector_has_not_is_refused(person: User, vector: Vector) -> None:
    with pytest.raises(InvalidRequest, match="no direction at layer 17"):
        keep(person, content=using(vector, layer=17))


# ---- finding ----


def test_a_preset_is_found_by_its_models_name_without_case(person: User) -> None:
    kept = keep(person)
    assert kept.model_name == "smollm2-135m-instruct::calm@1.0"
    model, name, version = split_model_name(kept.model_name.upper())
    assert name is not None
    assert find(person, model, name, version) == kept


def test_without_a_version_the_newest_is_meant(person: User) -> None:
    keep(person, version="1.10")
    keep(person, version="1.9")
    assert find(person, MODEL.id, "calm").version == "1.10"


def test_what_others_do_not_share_is_not_found_and_not_named(person: User, stranger: User) -> None:
    keep(person, name="secret-plan")
    keep(stranger, name="open", shared=False)
    with pytest.raises(NotFound) as refusal:
        find(stranger, MODEL.id, "secret-plan")
    assert refusal.value.code == "preset_not_found"
    assert "There are open@1.0." in refusal.value.message


def test_a_preset_of_another_model_is_not_found(person: User) -> None:
    keep(person)
    with pytest.raises(NotFound, match="There is none yet"):
        find(person, OTHER.id, "calm")


def test_ones_own_come_first_then_steerboards_then_shared_ones(person: User, stranger: User) -> None:
    shared = keep(person, version="3.0", shared=True)
    assert find(stranger, MODEL.id, "calm") == shared
    starter = keep(None, version="2.0")
    assert find(stranger, MODEL.id, "calm") == starter
    own = keep(stranger)
    assert find(stranger, MODEL.id, "calm") == own
    assert find(stranger, MODEL.id, "calm", "3.0") == shared
    assert find(stranger, MODEL.id, "steerboard/calm") == starter


def test_two_shared_presets_of_one_name_are_told_apart_by_their_owners(person: User, stranger: User) -> None:
    third = User.objects.create_user("three@example.org")
    mine, theirs = keep(person, shared=True), keep(stranger, shared=True)
    with pytest.raises(InvalidRequest) as refusal:
        find(third, MODEL.id, "calm")
    assert refusal.value.code == "preset_ambiguous"
    for preset in (mine, theirs):
        assert preset.full_model_name in refusal.value.message
        model, name, version = split_model_name(preset.full_model_name)
        assert name is not None
        assert find(third, model, name, version) == preset
    assert find(third, MODEL.id, f"an-older-name-{person.pk}/calm") == mine


# ---- applying ----


def test_a_shared_preset_applies_its_owners_vectors(person: User, stranger: User, vector: Vector) -> None:
    keep(person, content=using(vector), shared=True)
    [applied] = interventions_of(find(stranger, MODEL.id, "calm"), MODEL)
    assert (applied.vector_id, applied.layers, applied.strength) == (vector.content_id, (2,), 0.3)


def test_a_preset_is_refused_on_another_model(person: User) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        interventions_of(keep(person), OTHER)
    assert refusal.value.code == "preset_model_mismatch"


def test_a_vector_is_lent_only_while_it_is_shared_and_only_by_the_preset_that_uses_it(
    person: User, stranger: User, vector: Vector
) -> None:
    hidden = keep_vector(person, seed=1)
    preset = keep(person, content=using(vector))
    keep(person, name="hidden", content=using(hidden))
    both = [vector.pk, hidden.pk]
    assert lent_to(stranger, both) == set()
    Preset.objects.filter(pk=preset.pk).update(shared=True)
    assert lent_to(stranger, both) == {vector.pk}
    assert lent_to(person, both) == set()
    [applied] = resolve_uses(stranger, preset.parsed.uses, MODEL, lent_to(stranger, both))
    assert applied.vector_id == vector.content_id
    assert vector not in Vector.objects.visible_to(stranger)


def test_uses_that_are_switched_off_ask_for_nothing(person: User) -> None:
    assert resolve_uses(person, (VectorUse("0" * 32, on=False),), MODEL) == ()


# ---- deleting ----


def test_a_vector_in_a_preset_cannot_be_deleted_but_goes_with_its_owner(person: User, vector: Vector) -> None:
    keep(person, content=using(vector))
    with pytest.raises(RestrictedError):
        vector.delete()
    person.delete()
    assert not Vector.objects.exists() and not Preset.objects.exists()


def test_presets_are_listed_with_few_queries(person: User, django_assert_max_num_queries: Any) -> None:
    for minor in range(5):
        keep(person, version=f"1.{minor}")
    with django_assert_max_num_queries(1, connection=connection):
        names = [library.model_name(preset) for preset in listed(person)]
    assert len(names) == 5
