"""Experiments: a recipe, how far it is, what it found."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from steering.api.rest.shapes.fields import Choice, Page, PageQuery, Strict, Text, Title
from steering.api.rest.shapes.jobs import JobErrorShape
from steering.experiments.models import Experiment

RECIPES = [recipe.value for recipe in Experiment.Recipe]
STATES = [state.value for state in Experiment.State]


def _anything(**options: Any) -> serializers.DictField:
    return serializers.DictField(child=serializers.JSONField(), **options)


class ExperimentQuery(PageQuery):
    recipe = serializers.ChoiceField(choices=RECIPES, required=False)
    state = serializers.ChoiceField(choices=STATES, required=False)


class ExperimentCreate(Strict):
    recipe = Choice(choices=RECIPES)
    vector = Text(
        required=False,
        max_length=120,
        help_text="A vector by id, slug or name. Fills in what `settings` leaves out: layers, prompts, a measure.",
    )
    name = Title(required=False, help_text="The vector's name, if left out.")
    settings = _anything(
        required=False,
        help_text="The recipe's own, by the names that an answer shows. Whole without `vector`. `behaviour.kind` is "
        "`lexicon_rate`, `lexicon_balance`, `mentions` or `words`, which count words, `json` or `list_lines`, which "
        "look at the form, or one that asks the unsteered model about `behaviour.concept`: `naming`, how many nats per "
        "token likelier an answer becomes when the concept is named, or `judge`, its own rating. Without a word list "
        "`vector` fills in `naming`. An evaluation's `beside` lists what else is measured: `naming`, `answers`, "
        "`letters`, `judge`.",
    )
    model = Text(
        required=False, allow_blank=True, max_length=200, help_text="A served model; the default one, if empty."
    )


class ExperimentShape(serializers.Serializer):
    id = serializers.UUIDField()
    recipe = serializers.ChoiceField(choices=RECIPES)
    name = serializers.CharField()
    model = serializers.CharField()
    state = serializers.ChoiceField(choices=STATES)
    done = serializers.IntegerField(help_text="Points measured, of `total`.")
    total = serializers.IntegerField()
    note = serializers.CharField(allow_blank=True)
    eta_seconds = serializers.FloatField(allow_null=True)
    seconds = serializers.FloatField(allow_null=True, help_text="How long it took; null before it ended.")
    error = JobErrorShape(allow_null=True)
    settings = _anything()
    findings = _anything(help_text="What it has found so far; whole when it has succeeded.")
    prompt_tokens = serializers.IntegerField(help_text="Read for it. What was known before costs nothing.")
    completion_tokens = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class ExperimentPage(Page):
    data = ExperimentShape(many=True)


class ResultQuery(Strict):
    group = serializers.CharField(required=False, max_length=120, help_text="Only the points of one condition.")
    limit = serializers.IntegerField(default=100, min_value=1, max_value=1000)
    offset = serializers.IntegerField(default=0, min_value=0, max_value=1_000_000)


class ResultShape(serializers.Serializer):
    group = serializers.CharField(help_text="The condition, by the name that the findings use.")
    place = serializers.IntegerField(help_text="Which prompt, from 0.")
    vector = serializers.IntegerField(allow_null=True, help_text="Its place among those of the settings.")
    operation = serializers.CharField(allow_null=True)
    layer = serializers.IntegerField(allow_null=True)
    strength = serializers.FloatField(allow_null=True)
    prompt = serializers.CharField()
    text = serializers.CharField(allow_blank=True)
    tokens = serializers.IntegerField()
    stopped = serializers.BooleanField(help_text="By itself, before the limit.")
    behaviour = serializers.FloatField(allow_null=True)
    surprise = serializers.FloatField(allow_null=True, help_text="Nats per token under the unsteered model.")
    variety = serializers.FloatField(allow_null=True)


class ResultList(serializers.Serializer):
    data = ResultShape(many=True)
    total = serializers.IntegerField()


def experiment_to_json(experiment: Experiment) -> dict[str, Any]:
    error = {"code": experiment.error_code, "message": experiment.error_message} if experiment.error_code else None
    named = (
        "recipe", "name", "state", "done", "total", "note", "eta_seconds", "seconds", "settings", "findings",
        "prompt_tokens", "completion_tokens", "created_at", "started_at", "finished_at",
    )  # fmt: skip
    facts = {name: getattr(experiment, name) for name in named}
    return {"id": str(experiment.pk), "model": experiment.model_id, "error": error} | facts
