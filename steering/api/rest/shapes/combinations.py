"""Vectors made of vectors, and vectors beside each other."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from steering.api.rest.shapes.fields import Choice, Id, Number, Strict, Text, Title
from steering.jobs.models import Job
from steering.vectors.combining import MAX_WEIGHT, MOST, OPERATIONS


class TermShape(Strict):
    vector = Id(help_text="A vector of your library.")
    weight = Number(default=1.0, min_value=-MAX_WEIGHT, max_value=MAX_WEIGHT, help_text="Not 0.")


class VectorCombine(Strict):
    """sum of w·v; difference, the first minus the others; average of the unit directions at their mean length;
    project_out, the first without its part in the span of the others; rescale, w·v of one vector."""

    name = Title()
    operation = Choice(choices=list(OPERATIONS))
    terms = TermShape(many=True, min_length=1, max_length=MOST)
    model = Text(
        required=False, allow_blank=True, max_length=300, help_text="The vectors' model, if several are served."
    )


class VectorCompare(Strict):
    vectors = serializers.ListField(child=Id(), min_length=2, max_length=MOST)
    model = Text(
        required=False, allow_blank=True, max_length=300, help_text="The vectors' model, if several are served."
    )


class NamedVectorShape(serializers.Serializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    url = serializers.CharField(help_text="Its page.")


class DroppedShape(serializers.Serializer):
    name = serializers.CharField()
    layers = serializers.ListField(child=serializers.IntegerField())


class NeighbourShape(NamedVectorShape):
    cosine = serializers.FloatField()


class PlaneShape(serializers.Serializer):
    """PCA of the unit directions, which is classical MDS of sqrt(2 - 2 cos)."""

    points = serializers.ListField(child=serializers.ListField(child=serializers.FloatField()))
    shown = serializers.FloatField(help_text="Share of the squared distances that the plane shows.")


class TokenEffectsShape(serializers.Serializer):
    """[token id, text, change of its logit against the average token's], through the final norm and unembedding."""

    promotes = serializers.ListField(child=serializers.ListField(child=serializers.JSONField()))
    suppresses = serializers.ListField(child=serializers.ListField(child=serializers.JSONField()))


class FoundShape(serializers.Serializer):
    """Lists go by layer, then by vector; norms by vector, then by layer."""

    model = serializers.CharField()
    layers = serializers.ListField(child=serializers.IntegerField(), help_text="Those that all vectors have.")
    dropped = DroppedShape(many=True, help_text="Layers left out, by vector.")
    vectors = NamedVectorShape(many=True)
    norms = serializers.ListField(child=serializers.ListField(child=serializers.FloatField()))
    residual_norms = serializers.ListField(child=serializers.ListField(child=serializers.FloatField()))
    cosines = serializers.ListField(
        child=serializers.ListField(child=serializers.ListField(child=serializers.FloatField()))
    )
    maps = PlaneShape(many=True)
    tokens = serializers.ListField(child=TokenEffectsShape(many=True))
    nearest = serializers.ListField(child=serializers.ListField(child=NeighbourShape(many=True)))
    searched = serializers.IntegerField(help_text="Vectors of your library that were looked through.")
    missing = serializers.IntegerField(help_text="Those whose files are gone.")


class ComparisonShape(serializers.Serializer):
    id = serializers.UUIDField(help_text="The job's.")
    state = serializers.ChoiceField(choices=[state.value for state in Job.State])
    found = FoundShape(allow_null=True, help_text="null until the job has succeeded, or when a vector was deleted.")


def comparison_to_json(job: Job, found: dict[str, Any] | None) -> dict[str, Any]:
    return {"id": str(job.pk), "state": job.state, "found": found}
