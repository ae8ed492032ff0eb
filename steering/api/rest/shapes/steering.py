"""A vector in use and how tokens are chosen, as requests say it. Defaults are those of the playground."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, get_args

from rest_framework import serializers

from inference.types import Operation
from inference.ways import MAX_BEAMS, MAX_SUBSET
from steering.api.rest.shapes.fields import MAX_WHOLE, Choice, Flag, Id, Number, Strict, Text, Whole
from steering.behaviors.watching import MAX_BEHAVIORS, MAX_FULL_NAME
from steering.presets.sampling import MAX_STOPS, MAX_TOKEN_SCHEDULE, MAX_TOKENS, TOP_LOGPROBS
from steering.vectors.uses import MAX_SCHEDULE, MAX_STRENGTH, MAX_THRESHOLD

LAST_TOKEN = 10_000_000


class NamesField(serializers.ListField):
    """Names of behaviors; none, if left out."""

    def __init__(self, **options: Any):
        child = Text(max_length=MAX_FULL_NAME)
        super().__init__(**({"child": child, "required": False, "max_length": MAX_BEHAVIORS} | options))


class PositionsShape(Strict):
    """Which tokens are touched. `start` and `stop` are a half-open window over positions, 0 being the first token."""

    prompt = Flag(default=True)
    generated = Flag(default=True)
    start = Whole(allow_null=True, default=None, max_value=LAST_TOKEN)
    stop = Whole(allow_null=True, default=None, max_value=LAST_TOKEN)
    special = Flag(default=True, help_text="Whether chat markers and the like are touched too.")


class ScheduleShape(Strict):
    """How much of the edit each generated token gets; the prompt's tokens, where touched, get all of it."""

    kind = Choice(
        choices=["first", "ramp", "decay"],
        help_text="All of it for the first `tokens`, rising to all of it over `tokens`, or halved every `tokens`.",
    )
    tokens = Whole(min_value=1, max_value=MAX_SCHEDULE)


class ConditionShape(Strict):
    """Steer only where the residual lies on one side of a threshold along a vector (CAST)."""

    threshold = Number(min_value=-MAX_THRESHOLD, max_value=MAX_THRESHOLD)
    vector = Id(required=False, allow_null=True, help_text="The vector in use itself, if left out.")
    layer = Whole(
        allow_null=True,
        default=None,
        max_value=9999,
        help_text="If left out: the steered one (token), or the one that the vector recommends (prompt).",
    )
    comparison = Choice(choices=["above", "below"], default="above")
    measure = Choice(choices=["projection", "cosine"], default="cosine")
    decided = Choice(
        choices=["prompt", "token"],
        default="prompt",
        help_text="Once, when the prompt has been read, for generated tokens; or anew at every token.",
    )
    pooling = Choice(choices=["mean", "last"], default="mean", help_text="Of the prompt's tokens.")


class FeatureInUse(Strict):
    """A latent of an autoencoder."""

    source = Text(max_length=120, help_text="The autoencoder's id, such as 9-res-4k.")
    index = Whole(max_value=2**31 - 1)


class UseShape(Strict):
    """A vector of the library, or a feature, in use. Give one of the two."""

    vector = Id(required=False, allow_null=True)
    feature = FeatureInUse(required=False, allow_null=True)
    layer = Whole(
        allow_null=True,
        default=None,
        max_value=9999,
        help_text="The one that the vector recommends, if left out. A feature acts at its autoencoder's.",
    )
    operation = Choice(choices=list(get_args(Operation)), default="add")
    strength = Number(
        default=0.0,
        min_value=-MAX_STRENGTH,
        max_value=MAX_STRENGTH,
        help_text="In `unit`; the share removed (ablate), 0 negative to 1 positive (affine), degrees (rotate).",
    )
    unit = Choice(
        choices=["raw", "relative", "max"],
        default="relative",
        help_text="max, of features alone: the largest activation in the indexed corpus.",
    )
    positions = PositionsShape(required=False)
    norm_preserving = Flag(default=False, help_text="Give the residual its old length back after the edit.")
    schedule = ScheduleShape(required=False, allow_null=True)
    condition = ConditionShape(required=False, allow_null=True)

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        if bool(data.get("vector")) == bool(data.get("feature")):
            raise serializers.ValidationError({"vector": "Give either a vector or a feature."})
        return data


class SamplingShape(Strict):
    """What is left out has the playground's default."""

    max_tokens = Whole(required=False, min_value=1, max_value=MAX_TOKENS)
    temperature = Number(required=False, min_value=0, max_value=5, help_text="0 is greedy.")
    top_p = Number(required=False, min_value=0, max_value=1, help_text="Above 0; 1 turns it off.")
    top_k = Whole(required=False, max_value=1_000_000, help_text="0 turns it off.")
    min_p = Number(required=False, min_value=0, max_value=1)
    typical_p = Number(required=False, min_value=0, max_value=1, help_text="Above 0; 1 turns it off.")
    ads_subset_size = Whole(required=False, max_value=MAX_SUBSET, help_text="0 turns it off; else 2 or more.")
    ads_beta = Number(required=False, min_value=0, max_value=1, help_text="Weight of being different.")
    adaptive_temperature = Number(
        required=False, min_value=0, max_value=10, help_text="Less temperature where the model is sure; 0 turns it off."
    )
    temperature_schedule = serializers.ListField(
        child=Number(min_value=0, max_value=5),
        required=False,
        max_length=MAX_TOKEN_SCHEDULE,
        help_text="Of each token, above 0.",
    )
    top_p_schedule = serializers.ListField(
        child=Number(min_value=0, max_value=1),
        required=False,
        max_length=MAX_TOKEN_SCHEDULE,
        help_text="Of each token, above 0.",
    )
    beam_width = Whole(required=False, min_value=1, max_value=MAX_BEAMS, help_text="Above 1 with temperature 0.")
    length_penalty = Number(required=False, min_value=-10, max_value=10)
    repetition_penalty = Number(required=False, min_value=0.1, max_value=10)
    frequency_penalty = Number(required=False, min_value=-2, max_value=2)
    presence_penalty = Number(required=False, min_value=-2, max_value=2)
    seed = Whole(required=False, allow_null=True, max_value=MAX_WHOLE, help_text="null draws one, which is reported.")
    stop = serializers.ListField(child=Text(max_length=200), required=False, max_length=MAX_STOPS)


class RunSamplingShape(SamplingShape):
    logprobs = Flag(required=False)
    top_logprobs = Whole(required=False, max_value=TOP_LOGPROBS)


def use_to_wire(use: dict[str, Any], *, on: bool = True) -> dict[str, Any]:
    wire = {**use, "vector": str(use.get("vector") or ""), "positions": dict(use.get("positions") or {}), "on": on}
    if feature := use.get("feature"):
        wire["feature"] = dict(feature)
    if schedule := use.get("schedule"):
        wire["schedule"] = dict(schedule)
    if condition := use.get("condition"):
        wire["condition"] = {**condition, "vector": str(condition.get("vector") or "")}
    return wire


def use_to_json(use: Any) -> dict[str, Any]:
    """Of a `VectorUse`."""
    found = asdict(use)
    if condition := found["condition"]:
        condition["vector"] = condition["vector"] or None
    found["vector"] = found["vector"] or None
    return {name: value for name, value in found.items() if name != "on"}
