"""Runs of the playground: up to six lanes that answer one input."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from inference.ways import settle
from steering.api.rest.shapes.fields import Choice, Flag, Id, Page, PageQuery, Strict, Text, Title, Whole
from steering.api.rest.shapes.steering import FeatureInUse, NamesField, RunSamplingShape, UseShape, use_to_wire
from steering.features.uses import MAX_WATCHED
from steering.playground.models import TITLE_LENGTH, LaneOutput, Run
from steering.playground.schema import LANE_KEYS, MAX_CHARS, MAX_LANES, MAX_MODEL_NAME, default_sampling
from steering.playground.ways import MAX_CONSTRAINT, MAX_GUESSES, methods, neutral
from steering.vectors.uses import MAX_USES

STATES = [state.value for state in Run.State]
COLOURS = ["base", "prompt", "1", "2", "3", "4", "5", "6"]


class RunQuery(PageQuery):
    q = serializers.CharField(
        required=False, max_length=200, help_text="Only those whose title or input has every word."
    )
    state = serializers.ChoiceField(choices=STATES, required=False)


class LaneUseShape(UseShape):
    on = Flag(default=True, help_text="What is off is kept with the run and does nothing.")


class LaneShape(Strict):
    """One column: the input, answered with its own system prompt and interventions."""

    key = Choice(choices=list(LANE_KEYS), required=False, help_text="A to F; in their order, if left out.")
    name = Title(required=False, max_length=60)
    colour = Choice(choices=COLOURS, default="base", help_text="How pages draw it.")
    system_prompt = Text(default="", allow_blank=True, max_length=MAX_CHARS)
    interventions = LaneUseShape(many=True, required=False, max_length=MAX_USES)
    behaviors = NamesField(help_text="Watched for while this lane is written, by name.")
    auto_correct = Flag(default=True, help_text="Correct what fires; otherwise it is only told.")
    force_steering = NamesField(help_text="Those of them that steer at every token, whatever they read.")
    copy_of = Choice(
        choices=["", *LANE_KEYS],
        default="",
        help_text="In a follow-up: the lane whose earlier answers it continues, where it has none of its own.",
    )


class ConstraintShape(Strict):
    """What every answer must be as a whole."""

    kind = Choice(choices=["json", "json_schema", "regex", "grammar"])
    text = Text(
        default="",
        allow_blank=True,
        max_length=MAX_CONSTRAINT,
        help_text="A JSON Schema as JSON, a pattern for the whole answer, or a grammar in Lark's syntax.",
    )


class DraftShape(Strict):
    """Tokens that are guessed, then judged in one pass: the same answer sooner."""

    model = Text(default="", allow_blank=True, max_length=MAX_MODEL_NAME, help_text="A companion; empty: look-up.")
    tokens = Whole(default=4, min_value=1, max_value=MAX_GUESSES)
    ngram = Whole(default=3, min_value=1, max_value=16, help_text="Of look-up: the last tokens to look for, at most.")


class RunCreate(Strict):
    mode = Choice(choices=["chat", "completion"], default="chat")
    input = Text(max_length=MAX_CHARS)
    lanes = LaneShape(many=True, min_length=1, max_length=MAX_LANES)
    sampling = RunSamplingShape(required=False)
    seed_lock = Flag(default=True, help_text="All lanes have the same seed; otherwise lane i has seed + i.")
    model = Text(
        required=False,
        allow_blank=True,
        max_length=MAX_MODEL_NAME,
        help_text="A served model; the default one, if empty.",
    )
    watched = FeatureInUse(
        many=True,
        required=False,
        max_length=MAX_WATCHED,
        help_text="Features that every lane reads at each token, without doing anything.",
    )
    method = Choice(
        choices=["", *(method["name"] for method in methods())],
        default="",
        help_text="A sampling method, of whose parameters alone `sampling` then speaks. Empty: all of it holds.",
    )
    constraint = ConstraintShape(required=False, allow_null=True)
    draft = DraftShape(required=False, allow_null=True)
    parent = Id(required=False, allow_null=True, help_text="The run that this one continues as a talk.")
    version_of = Id(required=False, allow_null=True, help_text="The run that is done again.")
    only = serializers.ListField(
        child=Choice(choices=list(LANE_KEYS)),
        required=False,
        min_length=1,
        max_length=MAX_LANES,
        help_text="The lanes to run; the others keep the answers they have in `version_of`.",
    )


class RunChange(Strict):
    title = Title(max_length=TITLE_LENGTH)


class RunStop(Strict):
    lane = Choice(choices=list(LANE_KEYS), required=False, help_text="All of them, if left out.")


def run_settings(asked: dict[str, Any], model: str) -> dict[str, Any]:
    """The settings of a run, as the playground's page sends them."""
    sampling = _sampling(asked["method"]) | asked.get("sampling", {})
    lanes = [_lane(lane, place) for place, lane in enumerate(asked["lanes"])]
    same = {name: asked[name] for name in ("mode", "input", "seed_lock")}
    watched = [dict(feature) for feature in asked.get("watched", ())]
    ways = {name: asked[name] for name in ("method", "constraint", "draft") if asked.get(name)}
    return {**same, "sampling": sampling, "lanes": lanes, "model": model, "watched": watched, **ways}


def _sampling(method: str) -> dict[str, Any]:
    """The playground's defaults, of which a method has those that it takes, and its own."""
    default = default_sampling().to_wire()
    return default | neutral() | settle(method, {}) if method else default


def _lane(lane: dict[str, Any], place: int) -> dict[str, Any]:
    key = lane.get("key", LANE_KEYS[place])
    uses = [use_to_wire(use, on=use["on"]) for use in lane.get("interventions", ())]
    return {**lane, "key": key, "name": lane.get("name", f"Lane {key}"), "interventions": uses}


# ---- answers ----


class UsageShape(serializers.Serializer):
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()


class AppliedScheduleShape(serializers.Serializer):
    kind = serializers.CharField()
    tokens = serializers.IntegerField()


class AppliedConditionShape(serializers.Serializer):
    """What a condition found."""

    hook_name = serializers.CharField()
    measure = serializers.CharField()
    comparison = serializers.CharField()
    threshold = serializers.FloatField()
    decided = serializers.CharField()
    pooling = serializers.CharField()
    value = serializers.FloatField(
        allow_null=True, help_text="At the decision, or the mean over the tokens that were decided on."
    )
    held_tokens = serializers.IntegerField(help_text="Left alone because the condition did not hold.")


class AppliedFeatureShape(serializers.Serializer):
    source = serializers.CharField()
    index = serializers.IntegerField()


class AppliedShape(serializers.Serializer):
    """Proof that an intervention acted, measured at the site itself."""

    vector_id = serializers.CharField(allow_null=True, help_text="The vector's content_id.")
    operation = serializers.CharField()
    hook_name = serializers.CharField()
    strength = serializers.FloatField()
    unit = serializers.CharField()
    residual_norm = serializers.FloatField(allow_null=True)
    prompt_tokens = serializers.IntegerField(help_text="Tokens touched.")
    generated_tokens = serializers.IntegerField()
    mean_dose = serializers.FloatField()
    projection_before = serializers.FloatField()
    projection_after = serializers.FloatField()
    reference = serializers.FloatField(
        allow_null=True, required=False, help_text="Where the negative examples lie, which affine counts from."
    )
    norm_preserving = serializers.BooleanField(required=False)
    schedule = AppliedScheduleShape(allow_null=True, required=False)
    condition = AppliedConditionShape(allow_null=True, required=False)
    feature = AppliedFeatureShape(allow_null=True, required=False, help_text="In place of a vector.")
    activation = serializers.FloatField(
        allow_null=True, required=False, help_text="The feature's mean over touched tokens before the edit."
    )
    watch = serializers.CharField(allow_null=True, required=False, help_text="The watch that it belongs to.")


class FiringShape(serializers.Serializer):
    """A watch went off at a token."""

    name = serializers.CharField()
    position = serializers.IntegerField()
    token_id = serializers.IntegerField()
    score = serializers.FloatField()
    action = serializers.CharField()
    dose = serializers.FloatField(help_text="The share of its interventions that acted.")


class AppliedConstraintShape(serializers.Serializer):
    kind = serializers.CharField()
    complete = serializers.BooleanField(help_text="The text fulfils it.")
    masked_tokens = serializers.IntegerField(help_text="Chosen under it.")
    problem = serializers.CharField(allow_blank=True, help_text="Why it is not complete.")


class AppliedDraftShape(serializers.Serializer):
    model = serializers.CharField(allow_blank=True, help_text="Empty: look-up.")
    proposed = serializers.IntegerField()
    accepted = serializers.IntegerField()
    passes = serializers.IntegerField()


class AppliedMemberShape(serializers.Serializer):
    weight = serializers.FloatField()
    model = serializers.CharField(allow_blank=True)
    applied = AppliedShape(many=True)


class BeamShape(serializers.Serializer):
    text = serializers.CharField(allow_blank=True)
    logprob = serializers.FloatField()
    score = serializers.FloatField()
    tokens = serializers.IntegerField()


class ReceiptShape(serializers.Serializer):
    model = serializers.CharField()
    revision = serializers.CharField(allow_blank=True)
    seed = serializers.IntegerField()
    applied = AppliedShape(many=True)
    fired = FiringShape(many=True, required=False, help_text="The first 1,000.")
    fired_total = serializers.IntegerField(required=False)
    constraint = AppliedConstraintShape(allow_null=True, required=False)
    draft = AppliedDraftShape(allow_null=True, required=False)
    members = AppliedMemberShape(many=True, required=False)
    beams = BeamShape(many=True, required=False, help_text="Best first, the answer among them.")


class LaneErrorShape(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()
    retry_after = serializers.FloatField(allow_null=True)


class AnswerShape(serializers.Serializer):
    """What one lane wrote, so far or in the end."""

    key = serializers.CharField()
    name = serializers.CharField()
    state = serializers.ChoiceField(choices=[state.value for state in LaneOutput.State])
    text = serializers.CharField(allow_blank=True)
    finish_reason = serializers.CharField(
        allow_blank=True, help_text="stop, length or cancelled; empty before the end."
    )
    usage = UsageShape(allow_null=True)
    receipt = ReceiptShape(allow_null=True)
    error = LaneErrorShape(allow_null=True)


class RunShape(serializers.Serializer):
    id = serializers.UUIDField()
    title = serializers.CharField()
    state = serializers.ChoiceField(choices=STATES)
    mode = serializers.ChoiceField(choices=["chat", "completion"])
    input = serializers.CharField()
    model = serializers.CharField(allow_blank=True, help_text="Empty: the one that was served by default.")
    parent = serializers.UUIDField(allow_null=True)
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)


class RunPage(Page):
    data = RunShape(many=True)


class RunDetail(RunShape):
    settings = serializers.DictField(child=serializers.JSONField(), help_text="Send it back to run it again.")
    versions = serializers.ListField(child=serializers.UUIDField(), help_text="All runs of this turn, oldest first.")
    answers = AnswerShape(many=True)


def run_to_json(run: Run) -> dict[str, Any]:
    return {
        "id": str(run.pk),
        "title": run.title,
        "state": run.state,
        "mode": run.settings["mode"],
        "input": run.input,
        "model": run.settings.get("model", ""),
        "parent": str(run.parent_id) if run.parent_id else None,
        "created_at": run.created_at,
        "finished_at": run.finished_at,
    }


def run_detail(run: Run) -> dict[str, Any]:
    names = {lane["key"]: lane["name"] for lane in run.settings["lanes"]}
    return run_to_json(run) | {
        "settings": _as_asked(run.settings),
        "versions": [str(pk) for pk in run.versions()],
        "answers": [_answer(output, names) for output in run.outputs.all()],
    }


def _as_asked(settings: dict[str, Any]) -> dict[str, Any]:
    """As a request says it, so that sending it back runs it again."""
    sampling = {name: settings["sampling"][name] for name in RunSamplingShape().fields if name in settings["sampling"]}
    lanes = [
        {**lane, "interventions": [_use_as_asked(use) for use in lane["interventions"]]} for lane in settings["lanes"]
    ]
    return {**settings, "sampling": sampling, "lanes": lanes}


def _use_as_asked(use: dict[str, Any]) -> dict[str, Any]:
    """Nothing is null in a request, where a page says it with an empty text."""
    condition = use.get("condition")
    named = {**condition, "vector": condition["vector"] or None} if condition else None
    return {**use, "vector": use["vector"] or None, "condition": named}


def _answer(output: LaneOutput, names: dict[str, str]) -> dict[str, Any]:
    return {
        "key": output.key,
        "name": names.get(output.key, output.key),
        "state": output.state,
        "text": output.text,
        "finish_reason": output.finish_reason,
        "usage": output.usage or None,
        "receipt": output.receipt or None,
        "error": output.error or None,
    }
