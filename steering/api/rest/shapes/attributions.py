"""Attributions: a question about two prompts, its parts, and what they found."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from inference.types import HEAD_SITES, MOST_ATTRIBUTED_TOKENS, MOST_INTEGRATION_STEPS, ModelInfo
from steering.api.rest.shapes.fields import Choice, Flag, Page, PageQuery, Strict, Text, Title, Whole
from steering.api.rest.shapes.jobs import STATES, JobErrorShape
from steering.attribution.forms import MAX_PROMPT, MAX_TARGETS, METRICS
from steering.attribution.models import Attribution, Part
from steering.attribution.running import MOST_VERIFIED

SITES = ["resid_pre", "resid_post", "attn_out", "mlp_out", *HEAD_SITES]
MOST_LAYERS = 1000
PARTS = {kind.value.replace("_", "-"): kind for kind in Part.Kind}  # as addresses name them


def _anything(**options: Any) -> serializers.DictField:
    return serializers.DictField(child=serializers.JSONField(), **options)


def _tokens(says: str) -> serializers.ListField:
    return serializers.ListField(child=Text(max_length=100), required=False, max_length=MAX_TARGETS, help_text=says)


class AttributionCreate(Strict):
    name = Title(required=False, help_text="The end of the clean prompt, if left out.")
    clean = Text(max_length=MAX_PROMPT, help_text="The prompt whose answer is to be explained.")
    corrupted = Text(max_length=MAX_PROMPT, help_text="The same, changed where the answer should come from.")
    metric = Choice(choices=list(METRICS), default="logit_difference")
    targets = _tokens("Texts of one token each, their space included: ` Mary`.")
    against = _tokens("What a logit difference subtracts.")
    alignment = serializers.ListField(
        child=serializers.ListField(child=Whole(max_value=MOST_ATTRIBUTED_TOKENS), min_length=2, max_length=2),
        required=False,
        max_length=MOST_ATTRIBUTED_TOKENS,
        help_text="Pairs of a clean and a corrupted position. Left out, they are found where that is clear.",
    )
    chat = Flag(default=False, help_text="Each prompt is a user's message.")
    sites = serializers.ListField(
        child=Choice(choices=SITES),
        required=False,
        min_length=1,
        max_length=len(SITES),
        help_text="resid_pre, attn_out, mlp_out and z (heads), if left out.",
    )
    layers = serializers.ListField(
        child=Whole(max_value=10_000), required=False, max_length=MOST_LAYERS, help_text="All, if left out."
    )
    steps = Whole(default=0, max_value=MOST_INTEGRATION_STEPS, help_text="Of integrated gradients; 0: one gradient.")
    path = Choice(choices=["inputs", "site"], default="inputs", help_text="What integrated gradients move.")
    qk_fix = Flag(default=False, help_text="AtP*'s, for the sites q and k.")
    grad_drop = Flag(default=False, help_text="AtP*'s: magnitudes, so that effects which cancel are seen.")
    by_position = Flag(default=True, help_text="Else scores are summed over positions.")
    top = Whole(default=50, max_value=1000, help_text="How many components to list.")
    model = Text(
        required=False, allow_blank=True, max_length=300, help_text="A served model; the default one, if empty."
    )


class AttributionChange(Strict):
    name = Title()


class Verification(Strict):
    top = Whole(default=20, min_value=1, max_value=MOST_VERIFIED)
    of = Choice(choices=["all", "each"], default="all", help_text="The top of all sites together, or of each.")


class FeatureAsk(Strict):
    source = Text(max_length=300, help_text="An SAE by its id, such as `9-res-4k`.")
    baseline = Choice(
        choices=["corrupted", "zero"], default="corrupted", help_text="`zero`: removing features from the clean run."
    )
    steps = Whole(default=0, max_value=MOST_INTEGRATION_STEPS)
    top = Whole(default=50, min_value=1, max_value=1000)


class WhichPrompt(Strict):
    which = Choice(choices=["clean", "corrupted"], default="clean")


class AttributionExportQuery(Strict):
    format = serializers.ChoiceField(choices=["json", "csv"], default="json")


class MapQuery(Strict):
    model = serializers.CharField(required=False, max_length=300, help_text="A served model; the default, if left out.")


class MapAsk(Strict):
    model = Text(required=False, allow_blank=True, max_length=300)


class PartShape(serializers.Serializer):
    kind = serializers.ChoiceField(choices=Part.Kind.values)
    state = serializers.ChoiceField(choices=STATES)
    settings = _anything(help_text="What it was asked beside the question.")
    job = serializers.UUIDField(allow_null=True, help_text="Follow or cancel it there.")
    error = JobErrorShape(allow_null=True)
    created_at = serializers.DateTimeField()


class FoundPartShape(PartShape):
    findings = _anything(allow_null=True, help_text="Null until it has succeeded.")


class AttributionShape(serializers.Serializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    model = serializers.CharField()
    revision = serializers.CharField(allow_blank=True)
    state = serializers.ChoiceField(choices=STATES, help_text="Of the heat maps; other parts have their own.")
    question = _anything(help_text="By the names with which it is created.")
    parts = PartShape(many=True)
    shared = serializers.BooleanField(help_text="Whether a link to it is in use.")
    created_at = serializers.DateTimeField()


class AttributionPage(Page):
    data = AttributionShape(many=True)


class AttributionQuery(PageQuery):
    pass


class ModelMapShape(serializers.Serializer):
    model = serializers.CharField()
    revision = serializers.CharField(allow_blank=True)
    map = _anything(help_text="nodes, edges, hooks, modules, and the model's sizes.")
    created_at = serializers.DateTimeField()


def part_to_json(part: Part) -> dict[str, Any]:
    facts = {name: getattr(part, name) for name in ("kind", "state", "settings", "error", "created_at")}
    return facts | {"job": str(part.job_id) if part.job_id else None}


def attribution_to_json(attribution: Attribution) -> dict[str, Any]:
    parts = attribution.newest(whole=False)
    main = parts.get(Part.Kind.ATTRIBUTE)
    return {
        "id": str(attribution.pk),
        "name": attribution.name,
        "model": attribution.model_id,
        "revision": attribution.revision,
        "state": main.state if main else "failed",
        "question": attribution.settings,
        "parts": [part_to_json(part) for _, part in sorted(parts.items())],
        "shared": bool(attribution.share),
        "created_at": attribution.created_at,
    }


def map_to_json(found: Any, model: ModelInfo) -> dict[str, Any]:
    return {
        "model": model.id,
        "revision": found.revision,
        "map": found.findings,
        "created_at": found.created_at,
    }
