"""A vector in use and how tokens are chosen, as requests say it. Defaults are those of the playground."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rest_framework import serializers

from steering.api.rest.shapes.fields import MAX_WHOLE, Choice, Flag, Id, Number, Strict, Text, Whole
from steering.presets.sampling import MAX_STOPS, MAX_TOKENS, TOP_LOGPROBS
from steering.vectors.uses import MAX_STRENGTH

LAST_TOKEN = 10_000_000


class PositionsShape(Strict):
    """Which tokens are touched. `start` and `stop` are a half-open window over positions, 0 being the first token."""

    prompt = Flag(default=True)
    generated = Flag(default=True)
    start = Whole(allow_null=True, default=None, max_value=LAST_TOKEN)
    stop = Whole(allow_null=True, default=None, max_value=LAST_TOKEN)
    special = Flag(default=True, help_text="Whether chat markers and the like are touched too.")


class UseShape(Strict):
    """A vector of the library, in use."""

    vector = Id()
    layer = Whole(allow_null=True, default=None, max_value=9999, help_text="The one it recommends, if left out.")
    operation = Choice(choices=["add", "ablate", "clamp", "cap"], default="add")
    strength = Number(default=0.0, min_value=-MAX_STRENGTH, max_value=MAX_STRENGTH)
    unit = Choice(choices=["raw", "relative"], default="relative")
    positions = PositionsShape(required=False)


class SamplingShape(Strict):
    """What is left out has the playground's default."""

    max_tokens = Whole(required=False, min_value=1, max_value=MAX_TOKENS)
    temperature = Number(required=False, min_value=0, max_value=5, help_text="0 is greedy.")
    top_p = Number(required=False, min_value=0, max_value=1, help_text="Above 0; 1 turns it off.")
    top_k = Whole(required=False, max_value=1_000_000, help_text="0 turns it off.")
    min_p = Number(required=False, min_value=0, max_value=1)
    repetition_penalty = Number(required=False, min_value=0.1, max_value=10)
    frequency_penalty = Number(required=False, min_value=-2, max_value=2)
    presence_penalty = Number(required=False, min_value=-2, max_value=2)
    seed = Whole(required=False, allow_null=True, max_value=MAX_WHOLE, help_text="null draws one, which is reported.")
    stop = serializers.ListField(child=Text(max_length=200), required=False, max_length=MAX_STOPS)


class RunSamplingShape(SamplingShape):
    logprobs = Flag(required=False)
    top_logprobs = Whole(required=False, max_value=TOP_LOGPROBS)


def use_to_wire(use: dict[str, Any], *, on: bool = True) -> dict[str, Any]:
    return {**use, "vector": str(use["vector"]), "positions": dict(use.get("positions") or {}), "on": on}


def use_to_json(use: Any) -> dict[str, Any]:
    """Of a `VectorUse`."""
    found = asdict(use)
    return {name: found[name] for name in ("vector", "layer", "operation", "strength", "unit", "positions")}
