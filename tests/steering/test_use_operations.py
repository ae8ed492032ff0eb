"""Operations, schedules and conditions of vectors in use: resolved against the library, kept in presets, in words."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from inference.errors import InferenceError, InvalidRequest, NotFound
from inference.types import ModelInfo, Positions, Schedule
from steering.accounts.models import User
from steering.playground.planning import plan_lanes
from steering.presets.content import PresetContent
from steering.presets.library import interventions_of, lent_to, save
from steering.presets.models import Preset
from steering.presets.words import uses_in_words
from steering.vectors.models import Vector
from steering.vectors.uses import UseCondition, VectorUse, resolve_uses
from tests.steering.play import a_run, keep_vector, steered

MODEL = ModelInfo("ready", "SmolLM2-135M-Instruct", n_layers=30)
LATE = Positions(prompt=False)


@pytest.fixture
def vector(person: User) -> Vector:
    return keep_vector(person, references={2: -0.5})


@pytest.fixture
def other(person: User) -> Vector:
    return named(keep_vector(person, seed=1), "anger")


def named(vector: Vector, name: str) -> Vector:
    Vector.objects.filter(pk=vector.pk).update(name=name)
    return Vector.objects.get(pk=vector.pk)


def use(vector: Vector, **changes: Any) -> VectorUse:
    return VectorUse(str(vector.pk), strength=0.3, positions=LATE, **changes)


def resolved(user: User, wanted: VectorUse) -> Any:
    (made,) = resolve_uses(user, [wanted], MODEL)
    return made


def code(user: User, wanted: VectorUse) -> str:
    with pytest.raises(InferenceError) as refusal:
        resolved(user, wanted)
    assert refusal.value.message.endswith(".")
    return refusal.value.code


def test_everything_reaches_the_model_side(person: User, vector: Vector, other: Vector) -> None:
    gate = UseCondition(0.2, str(other.pk), 3, "below", "projection", "prompt", "last")
    made = resolved(
        person, use(vector, operation="floor", norm_preserving=True, schedule=Schedule("ramp", 8), condition=gate)
    )
    assert (made.operation, made.norm_preserving, made.schedule) == ("floor", True, Schedule("ramp", 8))
    c = made.condition
    assert (c.vector_id, c.layer, c.threshold, c.comparison) == (other.content_id, 3, 0.2, "below")
    assert (c.measure, c.decided, c.pooling) == ("projection", "prompt", "last")
    assert made.vector_ids == (vector.content_id, other.content_id)


def test_a_condition_without_a_vector_or_layer_is_that_of_the_use(person: User, vector: Vector) -> None:
    for decided, layer in (("prompt", 2), ("token", 1)):
        made = resolved(person, use(vector, layer=1, condition=UseCondition(0.2, decided=decided)))  # type: ignore[arg-type]
        assert (made.condition.vector_id, made.condition.layer) == (vector.content_id, layer)


def test_what_a_vector_cannot_do_is_refused_before_it_is_tried(person: User, vector: Vector, other: Vector) -> None:
    assert resolved(person, use(vector, operation="affine")).operation == "affine"
    assert code(person, use(vector, operation="affine", layer=1)) == "no_reference"
    assert code(person, use(other, operation="affine")) == "no_reference"
    assert resolved(person, use(other, operation="rotate")).operation == "rotate"
    one = dict(other.summary, directions=other.summary["directions"][2:3])
    Vector.objects.filter(pk=other.pk).update(summary=one)
    assert code(person, use(other, operation="rotate")) == "no_plane"
    late = UseCondition(0.2, layer=3, decided="token")
    assert code(person, use(vector, condition=late)) == "condition_after_edit"
    assert code(person, use(vector, condition=UseCondition(0.2, layer=17))) == "layer_not_in_vector"


def test_a_condition_may_rest_only_on_a_vector_that_one_may_use(person: User, stranger: User, vector: Vector) -> None:
    theirs = keep_vector(stranger, seed=5)
    gate = UseCondition(0.2, str(theirs.pk))
    assert code(person, use(vector, condition=gate)) == "vector_not_found"
    with pytest.raises(NotFound):
        save(person, name="calm", version="1.0", model=MODEL, content=PresetContent((use(vector, condition=gate),)))
    Vector.objects.filter(pk=theirs.pk).update(owner=person, model_id="another")
    assert code(person, use(vector, condition=gate)) == "vector_model_mismatch"


def test_a_preset_fixes_its_condition_holds_its_vector_and_lends_it(
    person: User, stranger: User, vector: Vector, other: Vector
) -> None:
    gate = UseCondition(0.2, other.pk.hex.upper())
    content = PresetContent((use(vector, condition=gate, schedule=Schedule("first", 9)),))
    save(person, name="calm", version="1.0", model=MODEL, content=content, shared=True)
    kept = Preset.objects.get()
    [saved] = kept.parsed.uses
    assert saved.condition == dataclasses.replace(gate, vector=str(other.pk), layer=2)
    assert {v.pk for v in kept.vectors.all()} == {vector.pk, other.pk}
    assert lent_to(stranger, [other.pk]) == {other.pk}
    assert interventions_of(kept, MODEL)[0].condition.vector_id == other.content_id  # type: ignore[union-attr]
    lane = steered(vector, condition=saved.condition, positions=LATE)
    [planned] = plan_lanes(user=stranger, settings=a_run(lane), keys=("C",), parent=None, model=MODEL, prefix="x")
    assert planned.error is None
    with pytest.raises(InvalidRequest, match="lent by a preset"):
        mine = keep_vector(stranger, seed=7)
        borrowed = PresetContent((use(mine, condition=UseCondition(0.2, str(other.pk))),))
        save(stranger, name="x", version="1.0", model=MODEL, content=borrowed)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"operation": "rotate"}, "0.3°"),
        ({"operation": "affine"}, "0.3"),
        ({"operation": "floor", "unit": "raw"}, "0.3 raw"),
    ],
)
def test_a_preset_says_strength_in_the_unit_of_its_operation(
    person: User, vector: Vector, changes: dict[str, Any], said: str
) -> None:
    preset = save(person, name="c", version="1.0", model=MODEL, content=PresetContent((use(vector, **changes),)))
    [words] = uses_in_words(preset, person)
    assert words.strength + words.unit == said and words.acts


def test_a_preset_says_its_schedule_and_condition_in_words(person: User, vector: Vector, other: Vector) -> None:
    gate = UseCondition(0.25, str(other.pk), 1, "below", "cosine", "prompt", "last")
    wanted = use(vector, norm_preserving=True, schedule=Schedule("decay", 8), condition=gate)
    preset = save(person, name="c", version="1.0", model=MODEL, content=PresetContent((wanted,)))
    [words] = uses_in_words(preset, person)
    assert words.places == (
        "generated tokens only, the residual's length kept, halved every 8 generated tokens, "
        "if the prompt's last token has a cosine with “anger” at L1 below 0.25"
    )
