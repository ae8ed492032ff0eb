"""API keys. A secret is in the answer that makes it, and nowhere else."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from steering.access.models import SCOPES, ApiKey
from steering.api.rest.shapes.fields import Choice, Page, PageQuery, Strict, Text, Title, Whole

MAX_PER_MINUTE = 10**6
MAX_PER_DAY = 10**12
MAX_AT_ONCE = 10**4


class KeyQuery(PageQuery):
    state = serializers.ChoiceField(choices=["active", "expired", "revoked"], required=False)


class KeyCreate(Strict):
    name = Title(max_length=80)
    scopes = serializers.ListField(child=Choice(choices=list(SCOPES)), min_length=1, max_length=len(SCOPES))
    models = serializers.ListField(
        child=Text(max_length=200), required=False, max_length=50, help_text="Ids of served models; all, if left out."
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True, help_text="Never, if left out.")
    requests_per_minute = Whole(
        required=False, allow_null=True, min_value=1, max_value=MAX_PER_MINUTE, help_text="No limit, if left out."
    )
    tokens_per_day = Whole(required=False, allow_null=True, min_value=1, max_value=MAX_PER_DAY)
    concurrent_runs = Whole(required=False, allow_null=True, min_value=1, max_value=MAX_AT_ONCE)


class KeyShape(serializers.Serializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    shown = serializers.CharField(help_text="The secret as far as it may be seen again.")
    state = serializers.ChoiceField(choices=["active", "expired", "revoked"])
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=list(SCOPES)))
    models = serializers.ListField(child=serializers.CharField())
    requests_per_minute = serializers.IntegerField(allow_null=True)
    tokens_per_day = serializers.IntegerField(allow_null=True)
    concurrent_runs = serializers.IntegerField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
    last_used_at = serializers.DateTimeField(allow_null=True)
    revoked_at = serializers.DateTimeField(allow_null=True)


class KeyPage(Page):
    data = KeyShape(many=True)


class KeyMade(KeyShape):
    secret = serializers.CharField(
        allow_null=True,
        help_text="Shown once. An answer that is replayed for an Idempotency-Key has null: secrets are not stored.",
    )


def key_to_json(key: ApiKey) -> dict[str, Any]:
    same = ("name", "shown", "state", "scopes", "models", "requests_per_minute", "tokens_per_day", "concurrent_runs")
    times = ("expires_at", "created_at", "last_used_at", "revoked_at")
    return {"id": str(key.pk)} | {name: getattr(key, name) for name in (*same, *times)}


def made(key: ApiKey, secret: str) -> dict[str, Any]:
    return key_to_json(key) | {"secret": secret}


def without_secret(body: dict[str, Any]) -> dict[str, Any]:
    """What may be kept of an answer."""
    return body | {"secret": None}
