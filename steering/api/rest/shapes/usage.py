"""What was used, from the ledger."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from steering.access.standing import Use
from steering.access.usage import Line, Total
from steering.api.rest.shapes.fields import Strict

BY = ["day", "model", "key"]
MAX_DAYS = 366


class UsageQuery(Strict):
    days = serializers.IntegerField(default=30, min_value=1, max_value=MAX_DAYS, help_text="Today among them, in UTC.")
    by = serializers.ChoiceField(
        choices=BY, required=False, help_text="Add up by this; if left out, there is a line per day, model and key."
    )


class UsageLine(serializers.Serializer):
    day = serializers.DateField(allow_null=True)
    model = serializers.CharField(allow_null=True, allow_blank=True)
    key = serializers.UUIDField(allow_null=True, help_text="null: a session, or not asked for.")
    key_name = serializers.CharField(allow_null=True)
    requests = serializers.IntegerField()
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()


class LimitUse(serializers.Serializer):
    used = serializers.IntegerField()
    limit = serializers.IntegerField(allow_null=True, help_text="null: there is none.")


class LimitsNow(serializers.Serializer):
    """How you stand with the strictest of your own limits and those of your groups."""

    requests = LimitUse(help_text="In this minute.")
    tokens = LimitUse(help_text="Today, in UTC.")
    running = LimitUse(help_text="Now.")


class UsageReport(serializers.Serializer):
    data = UsageLine(many=True)
    limits = LimitsNow()


NOTHING: dict[str, Any] = {"day": None, "model": None, "key": None, "key_name": None}
NAMES = {
    "day": lambda line: (("day", line.day),),
    "model": lambda line: (("model", line.model),),
    "key": lambda line: (("key", line.key), ("key_name", line.key_name)),
}


def line_to_json(line: Line) -> dict[str, Any]:
    about = {"day": line.day, "model": line.model, "key": line.key, "key_name": line.key_name}
    return about | _counts(line)


def total_to_json(total: Total) -> dict[str, Any]:
    """A total whose name is one of NAMES."""
    return NOTHING | dict(total.name) | _counts(total)


def _counts(of: Line | Total) -> dict[str, int]:
    return {name: getattr(of, name) for name in ("requests", "prompt_tokens", "completion_tokens")}


def use_to_json(use: Use) -> dict[str, int | None]:
    return {"used": use.used, "limit": use.limit}
