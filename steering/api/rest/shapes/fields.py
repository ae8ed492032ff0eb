"""Fields that take what they name and nothing that merely looks like it; a request is honoured exactly or refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

MAX_WHOLE = 2**53 - 1  # the largest that every JSON reader keeps


class Strict(serializers.Serializer):
    """A request. Names that it does not know are refused."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = [name for name, field in self.fields.items() if not field.read_only]
            unknown = [str(name) for name in data if name not in known]
            if unknown:
                said = f"This is not known here. Known are: {', '.join(known)}."
                raise serializers.ValidationError({name[:60]: said for name in unknown[:10]})
        return super().to_internal_value(data)


class Text(serializers.CharField):
    """Text as it is, spaces included."""

    def __init__(self, **options: Any):
        options.setdefault("trim_whitespace", False)
        super().__init__(**options)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        text: str = super().to_internal_value(data)
        return text


class Title(Text):
    """A name: one line, no spaces around it, not empty."""

    def __init__(self, **options: Any):
        super().__init__(**({"trim_whitespace": True, "max_length": 120} | options))

    def to_internal_value(self, data: Any) -> str:
        if isinstance(data, str) and len(data) > self.max_length:  # as it was sent, which is what the document bounds
            self.fail("max_length", max_length=self.max_length)
        return " ".join(super().to_internal_value(data).split())


class Whole(serializers.IntegerField):
    def __init__(self, **options: Any):
        super().__init__(**({"min_value": 0, "max_value": MAX_WHOLE} | options))

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return int(data)


class Number(serializers.FloatField):
    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float) or abs(data) > 1e300 or math.isnan(data):
            self.fail("invalid")
        return float(data)


class Flag(serializers.BooleanField):
    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return bool(data)


class Choice(serializers.ChoiceField):
    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid_choice", input=data)
        return super().to_internal_value(data)


class Id(serializers.UUIDField):
    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str) or len(data) > 60:
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


# ---- queries, in which everything is text ----


class PageQuery(Strict):
    limit = serializers.IntegerField(
        default=20, min_value=1, max_value=100, help_text="How many at most, 1 to 100.", label="Limit"
    )
    cursor = serializers.CharField(
        required=False, max_length=100, help_text="`next_cursor` of the page before. Leave it out for the first page."
    )


def search_field(what: str) -> serializers.CharField:
    return serializers.CharField(required=False, max_length=200, help_text=f"Only those whose {what}.")


def owner_field() -> serializers.ChoiceField:
    return serializers.ChoiceField(
        choices=["me", "starters"], required=False, help_text="Only your own, or only the starters. Both if left out."
    )


def owned(rows: Any, query: Mapping[str, Any]) -> Any:
    """Rows after the filter `owner`."""
    match query.get("owner"):
        case "me":
            return rows.exclude(owner=None)
        case "starters":
            return rows.filter(owner=None)
    return rows


# ---- answers ----


class Page(serializers.Serializer):
    """To be subclassed with `data`."""

    next_cursor = serializers.CharField(
        allow_null=True, help_text="Send it as `cursor` to get the next page; null on the last one."
    )


class ErrorDetail(serializers.Serializer):
    code = serializers.CharField(help_text="For programs; stays the same.")
    message = serializers.CharField(help_text="For people: what happened, and what to do.")
    request_id = serializers.CharField(help_text="The server's log has the rest under this id.")
    fields = serializers.DictField(
        child=serializers.CharField(), required=False, help_text="What is at fault, by its path in the request."
    )


class Error(serializers.Serializer):
    """Every failure."""

    error = ErrorDetail()
