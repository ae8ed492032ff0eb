"""Presets: named, versioned sets of interventions."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from steering.api.rest.shapes.fields import Flag, Page, PageQuery, Strict, Text
from steering.api.rest.shapes.steering import NamesField, SamplingShape, UseShape, use_to_json, use_to_wire
from steering.naming import FIRST_VERSION, MAX_DESCRIPTION, MAX_NAME
from steering.presets.content import MAX_SYSTEM_PROMPT
from steering.presets.models import Preset
from steering.vectors.uses import MAX_USES


class PresetQuery(PageQuery):
    model = serializers.CharField(required=False, max_length=200, help_text="Only those made on this model.")
    name = serializers.CharField(required=False, max_length=MAX_NAME)
    owner = serializers.ChoiceField(
        choices=["me", "starters", "others"],
        required=False,
        help_text="Only your own, those that come with Steerboard, or those that others share.",
    )


class PresetCreate(Strict):
    name = Text(max_length=MAX_NAME, help_text="Lower-case letters, digits, - and _, such as calm-answers.")
    version = Text(default=FIRST_VERSION, max_length=12, help_text="Two numbers: 1.0. A saved version never changes.")
    description = Text(default="", allow_blank=True, max_length=MAX_DESCRIPTION)
    shared = Flag(default=False, help_text="Everyone on this server may use it, with your vectors.")
    model = Text(
        required=False, allow_blank=True, max_length=200, help_text="A served model; the default one, if empty."
    )
    uses = UseShape(many=True, required=False, max_length=MAX_USES)
    system_prompt = Text(default="", allow_blank=True, max_length=MAX_SYSTEM_PROMPT)
    sampling = SamplingShape(required=False)
    behaviors = NamesField(help_text="Watched for, by name; kept with their owner and version.")
    auto_correct = Flag(default=True, help_text="Correct what fires; otherwise it is only told.")
    force_steering = NamesField(help_text="Those of them that steer at every token, whatever they read.")


class PresetChange(Strict):
    shared = Flag()


def content_of(asked: dict[str, Any]) -> dict[str, Any]:
    """The wire form of `PresetContent`."""
    return {
        "uses": [use_to_wire(use) for use in asked.get("uses", ())],
        "system_prompt": asked["system_prompt"],
        "sampling": dict(asked.get("sampling", {})),
        "behaviors": asked.get("behaviors", []),
        "auto_correct": asked["auto_correct"],
        "force_steering": asked.get("force_steering", []),
    }


class UsedShape(UseShape):
    """As in a request, with every field."""


class PresetShape(serializers.Serializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    version = serializers.CharField()
    model = serializers.CharField()
    model_name = serializers.CharField(help_text="What to send as `model` to the OpenAI endpoints.")
    description = serializers.CharField(allow_blank=True)
    verdict = serializers.CharField(
        allow_blank=True,
        help_text="How one that comes with Steerboard did on its model: works, weak or fails. Empty for all others.",
    )
    shared = serializers.BooleanField()
    mine = serializers.BooleanField()
    uses = UsedShape(many=True)
    system_prompt = serializers.CharField(allow_blank=True)
    sampling = serializers.DictField(child=serializers.JSONField())
    behaviors = serializers.ListField(child=serializers.CharField())
    auto_correct = serializers.BooleanField()
    force_steering = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()


class PresetPage(Page):
    data = PresetShape(many=True)


def preset_to_json(preset: Preset, user: Any) -> dict[str, Any]:
    """The name that means it for this person."""
    mine = preset.owner_id == user.pk
    content = preset.parsed
    return {
        "id": str(preset.pk),
        "name": preset.name,
        "version": preset.version,
        "model": preset.model_id,
        "model_name": preset.model_name if mine else preset.full_model_name,
        "description": preset.description,
        "verdict": preset.verdict,
        "shared": preset.shared,
        "mine": mine,
        "uses": [use_to_json(use) for use in content.uses],
        "system_prompt": content.system_prompt,
        "sampling": content.sampling,
        "behaviors": list(content.behaviors),
        "auto_correct": content.auto_correct,
        "force_steering": list(content.force_steering),
        "created_at": preset.created_at,
    }
