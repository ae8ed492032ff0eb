"""Datasets and their pairs."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from inference.persona import LEAST_PAIRS, LONGEST_TRAIT, MOST_PAIRS
from inference.types import Pair
from steering.api.rest.shapes.fields import (
    Choice,
    Page,
    PageQuery,
    Strict,
    Text,
    Title,
    Whole,
    owner_field,
    search_field,
)
from steering.datasets.columns import ROLES, BadLine, checked
from steering.datasets.limits import MAX_LINE_BYTES, MAX_ROWS
from steering.datasets.models import Dataset

PAIRS_AT_ONCE = 5000
KINDS = [kind.value for kind in Dataset.Kind]


class PairShape(Strict):
    """One contrastive example. Without a prompt the sides are whole texts."""

    prompt = Text(required=False, allow_blank=True, default="", max_length=MAX_LINE_BYTES)
    positive = Text(max_length=MAX_LINE_BYTES, help_text="What the vector should steer towards.")
    negative = Text(max_length=MAX_LINE_BYTES, help_text="What it should steer away from.")

    def validate(self, data: dict[str, Any]) -> Pair:
        try:
            return checked(Pair(data["positive"], data["negative"], data["prompt"]))
        except BadLine as error:
            raise serializers.ValidationError(str(error)) from None


def pair_to_json(pair: Pair) -> dict[str, str]:
    return {role: getattr(pair, role) for role in ROLES}


class DatasetQuery(PageQuery):
    q = search_field("name contains this")
    owner = owner_field()
    kind = serializers.ChoiceField(choices=KINDS, required=False)


class DatasetCreate(Strict):
    name = Title()
    description = Text(required=False, allow_blank=True, default="", max_length=2000)
    pairs = PairShape(many=True, min_length=1, max_length=PAIRS_AT_ONCE)


class DatasetDescribe(Strict):
    """Pairs that the model writes. `persona` needs a chat template; read what was written before you build from it."""

    trait = Text(max_length=LONGEST_TRAIT, help_text="The behaviour: a word, or what goes on after “You are”.")
    opposite = Text(required=False, allow_blank=True, max_length=LONGEST_TRAIT, help_text="The other side, in a word.")
    how = Choice(choices=["description", "persona"], default="description")
    name = Title(required=False, help_text="The behaviour, if left out.")
    count = Whole(required=False, min_value=LEAST_PAIRS, max_value=MOST_PAIRS, help_text="Usable pairs; 32, if none.")
    judge = Choice(choices=["auto", "relative", "strict", "none"], default="auto")
    seed = Whole(required=False, max_value=2**31 - 1)
    model = Text(required=False, allow_blank=True, max_length=300, help_text="A served model; the default, if empty.")


class DatasetImport(Strict):
    """Either `file` (in a form) or `text`. `columns` maps prompt, positive and negative to the columns of the file."""

    file = serializers.FileField(required=False, help_text="JSONL, JSON or CSV in UTF-8, up to 20 MB.")
    text = Text(required=False, max_length=2_500_000, help_text="The same as text, up to 2.5 MB.")
    name = Title(required=False, help_text="The name of the file, if left out.")
    description = Text(required=False, allow_blank=True, default="", max_length=2000)
    prompt_column = Text(required=False, max_length=200, help_text="Guessed from the columns' names, if left out.")
    positive_column = Text(required=False, max_length=200)
    negative_column = Text(required=False, max_length=200)
    skip_bad_lines = serializers.BooleanField(
        default=False, help_text="Import the good lines and leave out the others, which the answer lists."
    )


class DatasetChange(Strict):
    name = Title(required=False)
    description = Text(required=False, allow_blank=True, max_length=2000)
    version = Whole(
        required=False, min_value=1, help_text="The version that was read: refused if there is a newer one."
    )


class DatasetCopy(Strict):
    name = Title(required=False, help_text="The name of the original and “, copy”, if left out.")


class PairsQuery(Strict):
    start = serializers.IntegerField(default=0, min_value=0, max_value=MAX_ROWS, help_text="The first, from 0.")
    limit = serializers.IntegerField(default=100, min_value=1, max_value=1000)


class PairsChange(Strict):
    """Puts `pairs` in the place of those from `start` up to `stop`; of all of them, if neither is given."""

    version = Whole(min_value=1, help_text="The version that was read: refused with 409 if there is a newer one.")
    start = Whole(required=False, max_value=MAX_ROWS, help_text="0 if left out.")
    stop = Whole(required=False, max_value=MAX_ROWS, help_text="The end, if left out.")
    pairs = PairShape(many=True, max_length=PAIRS_AT_ONCE)


class ExportQuery(Strict):
    format = serializers.ChoiceField(choices=["jsonl", "csv"], default="jsonl")


# ---- answers ----


class DatasetShape(serializers.Serializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField(allow_blank=True)
    kind = serializers.ChoiceField(
        choices=KINDS, help_text="pairs: prompts with two answers. texts: without prompts. caa: CAA questions."
    )
    version = serializers.IntegerField(help_text="Counts up with every change.")
    starter = serializers.BooleanField(help_text="Belongs to nobody: everyone may read and copy it.")
    n_pairs = serializers.IntegerField()
    warnings = serializers.IntegerField(allow_null=True, help_text="How many findings there are; null: not checked.")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


def dataset_to_json(dataset: Dataset) -> dict[str, Any]:
    """`dataset` comes from `with_counts()`."""
    return {
        "id": str(dataset.pk),
        "name": dataset.name,
        "description": dataset.description,
        "kind": dataset.kind,
        "version": dataset.version,
        "starter": dataset.is_starter,
        "n_pairs": dataset.n_examples,  # type: ignore[attr-defined]
        "warnings": dataset.warnings,
        "created_at": dataset.created_at,
        "updated_at": dataset.updated_at,
    }


class DatasetPage(Page):
    data = DatasetShape(many=True)


class LeftOut(serializers.Serializer):
    line = serializers.IntegerField(help_text="Counts from 1.")
    message = serializers.CharField()


class DatasetImported(serializers.Serializer):
    dataset = DatasetShape()
    left_out = LeftOut(many=True, help_text="The first 100 lines that were left out, with the reason.")
    n_left_out = serializers.IntegerField()


class PairsPage(serializers.Serializer):
    version = serializers.IntegerField(help_text="Send it back with a change.")
    n_pairs = serializers.IntegerField()
    start = serializers.IntegerField()
    pairs = PairShape(many=True)


class FindingShape(serializers.Serializer):
    rule = serializers.CharField()
    title = serializers.CharField()
    advice = serializers.CharField()
    rows = serializers.ListField(child=serializers.IntegerField(), help_text="Pairs concerned, from 1; the first 1000.")


class TokensShape(serializers.Serializer):
    state = serializers.ChoiceField(choices=["checked", "waiting", "unavailable"])
    title = serializers.CharField()
    advice = serializers.CharField(allow_blank=True)
    rows = serializers.ListField(child=serializers.IntegerField())


class FindingsShape(serializers.Serializer):
    findings = FindingShape(many=True)
    tokens = TokensShape(help_text="Whether answers run into the last token of their prompt, as the model reads them.")
