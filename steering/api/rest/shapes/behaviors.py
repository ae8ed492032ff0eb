"""Behaviors: how they are fitted, what they do, how often they were seen."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from inference.statistics import Interval
from steering.api.rest.shapes.fields import Choice, Flag, Id, Number, Page, PageQuery, Strict, Text, Whole
from steering.api.rest.shapes.steering import UseShape, use_to_json, use_to_wire
from steering.behaviors.corrector import MOST_ATTEMPTS, MOST_SPAN
from steering.behaviors.detector import Rates
from steering.behaviors.forms import ACTIONS
from steering.behaviors.models import AlertRule, Behavior
from steering.behaviors.monitoring import Figures, Line
from steering.behaviors.reading import MAX_TEXT, reading_of
from steering.behaviors.watching import name_for
from steering.jobs.models import Job
from steering.naming import MAX_DESCRIPTION, MAX_NAME
from steering.vectors.uses import MAX_STRENGTH, MAX_USES

DIRECTIONS = [direction.value for direction in Behavior.Direction]
MAX_THRESHOLD = 1_000_000


class BehaviorQuery(PageQuery):
    model = serializers.CharField(required=False, max_length=200, help_text="Only those fitted on this model.")
    name = serializers.CharField(required=False, max_length=MAX_NAME)
    owner = serializers.ChoiceField(
        choices=["me", "starters", "others"],
        required=False,
        help_text="Only your own, those that come with Steerboard, or those that others share.",
    )


class CorrectionShape(Strict):
    """What is done where the detector fires."""

    action = Choice(choices=[name for name, _ in ACTIONS], default="steer")
    uses = UseShape(
        many=True,
        required=False,
        max_length=MAX_USES,
        help_text="Vectors and features to steer with, none before the layer that the detector reads.",
    )
    dose = Choice(
        choices=["fixed", "proportional"],
        default="fixed",
        help_text="All of it at every token that fires, or more of it the higher the token reads.",
    )
    span = Whole(default=16, min_value=1, max_value=MOST_SPAN, help_text="regenerate: tokens that are written again.")
    attempts = Whole(default=3, min_value=1, max_value=MOST_ATTEMPTS, help_text="regenerate: then the answer ends.")
    reads_prompt = Flag(default=False, help_text="Read the prompt too, and not only what the model writes.")


class FitCorrectionShape(CorrectionShape):
    """As in a behavior. Without `uses`, steering is away from what the detector finds, with the vector of the fit."""

    strength = Number(
        required=False,
        min_value=0,
        max_value=MAX_STRENGTH,
        help_text="Of the vector of the fit, relative; as it recommends, if left out.",
    )


class BehaviorFit(Strict):
    dataset = Id(help_text="At least eight pairs; the positive side shows the behavior. 50 and more are better.")
    name = Text(max_length=MAX_NAME, help_text="Lower-case letters, digits and hyphens, such as anger.")
    description = Text(default="", allow_blank=True, max_length=MAX_DESCRIPTION)
    direction = Choice(
        choices=DIRECTIONS,
        default="suppress",
        help_text="suppress: act where the behavior shows. encourage: act where it is missing.",
    )
    on = Choice(choices=["residual", "features"], default="residual", help_text="What the probe reads.")
    source = Text(required=False, allow_blank=True, max_length=120, help_text="features: the autoencoder's id.")
    layers = serializers.ListField(
        child=Whole(max_value=9999),
        required=False,
        max_length=200,
        help_text="residual: those to try; where steering usually works, if left out.",
    )
    max_features = Whole(default=16, min_value=1, max_value=256, help_text="features: how many at most.")
    false_positive_rate = Number(
        default=0.05,
        min_value=0.001,
        max_value=0.5,
        help_text="The share of answers without need for correction that may be touched.",
    )
    chat = Flag(default=True, help_text="Format prompt and answer with the model's chat template.")
    correction = FitCorrectionShape(required=False)
    model = Text(
        required=False, allow_blank=True, max_length=300, help_text="A served model; the default one, if empty."
    )


class BehaviorChange(Strict):
    """What may change of a version; what it detects and does may not."""

    shared = Flag(required=False, help_text="Everyone on this server may use it, with your vectors.")
    description = Text(required=False, allow_blank=True, max_length=MAX_DESCRIPTION)
    keep_samples = Flag(
        required=False,
        help_text="Keep the pieces of your own runs in which it fired, for 30 days. Turned off, they are deleted.",
    )


class VersionCreate(Strict):
    """The same detector; what is left out stays as it is."""

    version = Text(required=False, max_length=12, help_text="Two numbers: 1.1. The next one, if left out.")
    threshold = Number(required=False, min_value=-MAX_THRESHOLD, max_value=MAX_THRESHOLD)
    description = Text(required=False, allow_blank=True, max_length=MAX_DESCRIPTION)
    correction = CorrectionShape(required=False)


class BehaviorRead(Strict):
    text = Text(max_length=MAX_TEXT)
    prompt = Text(
        default="", allow_blank=True, max_length=MAX_TEXT, help_text="Then the text is the answer to this message."
    )


class MonitoringQuery(Strict):
    days = serializers.IntegerField(default=30, min_value=1, max_value=365, help_text="Today included, in UTC.")


class RuleShape(Strict):
    percent = Number(min_value=0, max_value=100, help_text="More than so many percent of a day's runs.")
    runs = Whole(min_value=1, max_value=1_000_000, help_text="On days with at least so many runs.")
    email = Flag(default=True, help_text="By e-mail too, once a day at most.")


# ---- answers ----


class BehaviorTokenShape(serializers.Serializer):
    text = serializers.CharField(allow_blank=True, trim_whitespace=False)
    score = serializers.FloatField(allow_null=True, help_text="Null of special tokens, which are not read.")
    fires = serializers.BooleanField()


class BehaviorReadingShape(serializers.Serializer):
    state = serializers.CharField()
    threshold = serializers.FloatField()
    tokens = BehaviorTokenShape(many=True, allow_null=True)
    error = serializers.CharField(allow_blank=True)


def reading_to_json(job: Job, behavior: Behavior) -> dict[str, Any]:
    read = reading_of(job, behavior)
    tokens = [
        {"text": text, "score": score, "fires": score is not None and score > behavior.threshold}
        for text, score in (read["tokens"] if read else ())
    ]
    return {
        "state": job.state,
        "threshold": behavior.threshold,
        "tokens": tokens if read else None,
        "error": job.error_message,
    }


class ShareShape(serializers.Serializer):
    """A share, with its 95 % interval."""

    estimate = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()


class RatesShape(serializers.Serializer):
    threshold = serializers.FloatField()
    false_positive_rate = ShareShape()
    recall = ShareShape()
    precision = ShareShape(allow_null=True, help_text="Null where nothing fires.")


class DetectorShape(serializers.Serializer):
    on = serializers.CharField()
    layer = serializers.IntegerField()
    auroc = serializers.FloatField(help_text="On held-out pairs; 0.5 is chance.")
    held_out = serializers.IntegerField(help_text="Pairs that the fit did not learn from.")
    at_threshold = RatesShape(help_text="What this version's threshold does to them.")
    warnings = serializers.ListField(child=serializers.CharField())


class DetectorDetail(DetectorShape):
    curve = RatesShape(many=True, help_text="Every threshold that makes a difference, from the strictest on.")


class CorrectionAnswer(serializers.Serializer):
    action = serializers.CharField()
    uses = UseShape(many=True)
    dose = serializers.CharField()
    span = serializers.IntegerField()
    attempts = serializers.IntegerField()
    reads_prompt = serializers.BooleanField()


class BehaviorShape(serializers.Serializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    version = serializers.CharField()
    call_name = serializers.CharField(help_text="What to send in `behavior_names` to the OpenAI endpoints.")
    model = serializers.CharField()
    description = serializers.CharField(allow_blank=True)
    direction = serializers.CharField()
    shared = serializers.BooleanField()
    mine = serializers.BooleanField()
    keep_samples = serializers.BooleanField()
    threshold = serializers.FloatField()
    detector = DetectorShape()
    correction = CorrectionAnswer()
    dataset = serializers.UUIDField(allow_null=True)
    created_at = serializers.DateTimeField()


class BehaviorDetail(BehaviorShape):
    detector = DetectorDetail()


class BehaviorPage(Page):
    data = BehaviorShape(many=True)


class CountShape(serializers.Serializer):
    watched = serializers.IntegerField(help_text="Runs.")
    fired = serializers.IntegerField(help_text="Runs in which it fired at least once.")
    tokens = serializers.IntegerField(help_text="Tokens at which it fired.")
    rate = serializers.FloatField(help_text="fired / watched.")


class BehaviorDayShape(CountShape):
    day = serializers.DateField()


class BehaviorKeyShape(CountShape):
    key = serializers.CharField(help_text="A key's name, “the pages”, or “other people” with whom it is shared.")


class MonitoringShape(serializers.Serializer):
    total = CountShape()
    days = BehaviorDayShape(many=True)
    keys = BehaviorKeyShape(many=True)
    rule = RuleShape(allow_null=True, help_text="Of your own behaviors.")
    alerts = serializers.ListField(child=serializers.DictField(child=serializers.JSONField()))


def rates_to_json(rates: Rates) -> dict[str, Any]:
    return {
        "threshold": rates.threshold,
        "false_positive_rate": _share(rates.false_positive_rate),
        "recall": _share(rates.recall),
        "precision": _share(rates.precision) if rates.precision else None,
    }


def _share(share: Interval) -> dict[str, float]:
    return {"estimate": share.estimate, "low": share.low, "high": share.high}


def behavior_to_json(behavior: Behavior, user: Any) -> dict[str, Any]:
    read, corrector = behavior.read, behavior.corrects
    return {
        "id": str(behavior.pk),
        "name": behavior.name,
        "version": behavior.version,
        "call_name": name_for(user, behavior),
        "model": behavior.model_id,
        "description": behavior.description,
        "direction": behavior.direction,
        "shared": behavior.shared,
        "mine": behavior.owner_id == user.pk,
        "keep_samples": behavior.keep_samples,
        "threshold": behavior.threshold,
        "detector": {
            "on": read.facts.get("fit", {}).get("on", "residual"),
            "layer": read.layer,
            "auroc": read.auroc,
            "held_out": read.held_out,
            "at_threshold": rates_to_json(read.at(behavior.threshold)),
            "warnings": read.warnings,
        },
        "correction": {
            "action": corrector.action,
            "uses": [use_to_json(use) for use in corrector.uses],
            "dose": corrector.dose,
            "span": corrector.span,
            "attempts": corrector.attempts,
            "reads_prompt": corrector.reads_prompt,
        },
        "dataset": str(behavior.dataset_id) if behavior.dataset_id else None,
        "created_at": behavior.created_at,
    }


def behavior_detail(behavior: Behavior, user: Any) -> dict[str, Any]:
    found = behavior_to_json(behavior, user)
    curve = [rates_to_json(rates) for rates in behavior.read.thresholds]
    return found | {"detector": found["detector"] | {"curve": curve}}


def correction_to_wire(asked: dict[str, Any]) -> dict[str, Any]:
    """The wire form of a `Corrector`."""
    same = {name: asked[name] for name in ("action", "dose", "span", "attempts", "reads_prompt")}
    return same | {"uses": [use_to_wire(use) for use in asked.get("uses", ())]}


def figures_to_json(seen: Figures) -> dict[str, Any]:
    return {
        "total": _count(seen.total),
        "days": [{"day": line.name, **_count(line)} for line in seen.days],
        "keys": [{"key": line.name, **_count(line)} for line in seen.keys],
    }


def _count(line: Line) -> dict[str, Any]:
    return {"watched": line.watched, "fired": line.fired, "tokens": line.tokens, "rate": line.rate}


def rule_to_json(rule: AlertRule | None) -> dict[str, Any] | None:
    return {"percent": rule.percent, "runs": rule.runs, "email": rule.email} if rule else None
