"""Vectors of the library: what they are, never their numbers, which come as a file."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from steering.api.rest.shapes.fields import (
    Choice,
    Flag,
    Id,
    Number,
    Page,
    PageQuery,
    Strict,
    Text,
    Title,
    Whole,
    owner_field,
    search_field,
)
from steering.vectors.exports import WRITTEN
from steering.vectors.forms import MOST_SEEDS, MOST_STEPS, MOST_VECTORS, MOST_WINDOW, POOLINGS
from steering.vectors.methods import methods
from steering.vectors.models import Vector

MAX_LAYERS = 200


class VectorQuery(PageQuery):
    q = search_field("name contains this")
    owner = owner_field()
    model = serializers.CharField(required=False, max_length=200, help_text="Only those made on this model.")


class VectorBuild(Strict):
    """How to build a vector; the same choices as on the page. What the method does not read counts for nothing."""

    dataset = Id(help_text="At least four pairs; one for prompt_difference, promotion, bipo, melbo.")
    name = Title(required=False, help_text="The dataset's, if left out.")
    method = Choice(choices=[method.key for method in methods()], default="mean_difference")
    pooling = Choice(choices=list(POOLINGS), default="mean")
    window = Whole(required=False, min_value=1, max_value=MOST_WINDOW, help_text="pooling window: its last tokens; 8.")
    span = Choice(choices=["answer", "all"], default="answer", help_text="Which tokens are read.")
    chat = Flag(default=False, help_text="Format prompt and answer with the model's chat template.")
    layers = serializers.ListField(
        child=Whole(max_value=9999), required=False, max_length=MAX_LAYERS, help_text="All of them, if left out."
    )
    shots = Whole(required=False, min_value=1, max_value=16, help_text="few_shot: answered examples before; 4.")
    layer = Whole(
        required=False,
        max_value=9999,
        help_text="promotion, bipo, melbo: the one layer; two fifths up, if none.",
    )
    form = Choice(choices=["add", "clamp", "affine"], required=False, help_text="promotion: what the vector does.")
    rank = Whole(required=False, min_value=1, max_value=16, help_text="promotion, affine: of the map.")
    steps = Whole(required=False, min_value=1, max_value=MOST_STEPS)
    learning_rate = serializers.FloatField(required=False, min_value=1e-6, max_value=10)
    seeds = Whole(required=False, min_value=1, max_value=MOST_SEEDS, help_text="Random starts; the best is kept.")
    seed = Whole(required=False, max_value=2**31 - 1)
    max_norm = serializers.FloatField(required=False, min_value=0.001, max_value=100, help_text="Relative.")
    noise = serializers.FloatField(required=False, min_value=0, max_value=100)
    target_loss = serializers.FloatField(required=False, min_value=0, max_value=1000, help_text="Nats.")
    satisfice = Choice(choices=["stop", "square"], required=False)
    beta = serializers.FloatField(required=False, min_value=0.001, max_value=10, help_text="bipo.")
    count = Whole(required=False, min_value=1, max_value=MOST_VECTORS, help_text="melbo: how many vectors.")
    target_layer = Whole(required=False, max_value=9999, help_text="melbo: the layer to change.")
    model = Text(
        required=False, allow_blank=True, max_length=300, help_text="A served model; the default one, if empty."
    )


class VectorForecast(Strict):
    """What to forecast, as for a build."""

    dataset = Id(help_text="At least four pairs.")
    method = Choice(choices=[method.key for method in methods() if method.takes_forecast], default="mean_difference")
    pooling = Choice(choices=list(POOLINGS), default="mean")
    window = Whole(required=False, min_value=1, max_value=MOST_WINDOW, help_text="pooling window: its last tokens; 8.")
    span = Choice(choices=["answer", "all"], default="answer", help_text="Which tokens are read.")
    shots = Whole(required=False, min_value=1, max_value=16, help_text="few_shot: answered examples before; 4.")
    chat = Flag(default=False, help_text="Format prompt and answer with the model's chat template.")
    layers = serializers.ListField(
        child=Whole(max_value=9999),
        required=False,
        max_length=MAX_LAYERS,
        help_text="Those at which steering usually works, if left out.",
    )
    model = Text(
        required=False, allow_blank=True, max_length=300, help_text="A served model; the default one, if empty."
    )


class Goal(Strict):
    """One datapoint: a prompt, and what is to become likely or unlikely after it."""

    prompt = Text(max_length=20_000, help_text="A user message with `chat`, else plain text.")
    promote = serializers.ListField(child=Text(max_length=4000), required=False, max_length=20)
    suppress = serializers.ListField(child=Text(max_length=4000), required=False, max_length=20)
    reverse = Flag(default=False, help_text="The vector is subtracted here.")


class VectorOptimise(Strict):
    """How to find a vector by gradient descent. Norms are relative to an ordinary token, losses in nats."""

    name = Title()
    datapoints = Goal(many=True, required=False, max_length=500)
    dataset = Id(
        required=False,
        help_text="In place of datapoints: positive sides are promoted, negative ones suppressed; MELBO takes prompts.",
    )
    layer = Whole(max_value=9999)
    method = Choice(choices=["promotion", "bipo", "melbo"], default="promotion")
    form = Choice(choices=["add", "clamp", "affine"], default="add")
    rank = Whole(min_value=1, max_value=16, default=1, help_text="Of the affine form.")
    steps = Whole(max_value=2000, default=0, help_text="0: the method's own default.")
    learning_rate = Number(required=False)
    seeds = Whole(min_value=1, max_value=64, default=1, help_text="Random starts in one batch; the best is kept.")
    seed = Whole(max_value=2**31, default=0)
    init_norm = Number(required=False)
    max_norm = Number(required=False)
    target_loss = Number(required=False)
    satisfice = Choice(choices=["stop", "square"], default="stop")
    noise = Number(default=0.0)
    batch = Whole(max_value=500, default=0, help_text="Datapoints per step; 0: all.")
    beta = Number(default=0.1, help_text="Of BiPO.")
    kl_texts = serializers.ListField(child=Text(max_length=4000), required=False, max_length=50)
    max_kl = Number(default=0.05, help_text="Mean nats per token on `kl_texts`, in a second phase.")
    kl_steps = Whole(max_value=2000, default=0)
    count = Whole(min_value=1, max_value=32, default=1, help_text="Vectors that MELBO finds.")
    target_layer = Whole(required=False, max_value=9999, help_text="Where MELBO measures the change.")
    chat = Flag(default=False)
    model = Text(
        required=False, allow_blank=True, max_length=300, help_text="A served model; the default one, if empty."
    )


class VectorImport(Strict):
    """A form, in which everything is text. All but the first two are for files of other programs."""

    file = serializers.FileField(
        help_text="A steering vector: safetensors, a GGUF control vector, Mechanex JSON, or svec."
    )
    name = Title(required=False, help_text="The file's, if left out.")
    site = serializers.ChoiceField(
        choices=["resid_post", "resid_pre"],
        required=False,
        help_text="Whether the file's layer L is what block L passes on or what it takes in; the format's, if left out."
        " Safetensors of other programs do not say it, and need it here.",
    )
    layer = serializers.IntegerField(
        required=False, min_value=0, max_value=9999, help_text="The layer to recommend, counted our way."
    )
    strength = serializers.FloatField(
        default=1.0, min_value=-10_000, max_value=10_000, help_text="The multiple of the vector to begin with."
    )
    leave_out = serializers.BooleanField(
        default=False, help_text="Agree to lose layers that lie before block 0, which cannot be steered here."
    )
    model = serializers.CharField(
        required=False, allow_blank=True, max_length=300, help_text="The model it was made on; the default, if empty."
    )


class VectorDownload(Strict):
    format = serializers.ChoiceField(
        choices=["safetensors", *WRITTEN], default="safetensors", help_text="Of which program."
    )
    layers = serializers.CharField(
        default="recommended",
        max_length=400,
        help_text="recommended, all, or numbers with commas; safetensors always has all. Other programs add every layer"
        " of a file at once.",
    )


class VectorChange(Strict):
    name = Title(required=False)
    description = Text(required=False, allow_blank=True, max_length=2000)


# ---- answers ----


class VectorShape(serializers.Serializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField(allow_blank=True)
    starter = serializers.BooleanField()
    model = serializers.CharField(help_text="A vector acts only on the model it was made on.")
    method = serializers.CharField()
    content_id = serializers.CharField(help_text="SHA-256 of the content: receipts name a vector by it.")
    layers = serializers.ListField(child=serializers.IntegerField())
    recommended_layer = serializers.IntegerField()
    recommended_strength = serializers.FloatField(
        help_text="In relative units: 1.0 is the length of an ordinary token. For affine, 1.0 is the map as trained."
    )
    recommended_operation = serializers.ChoiceField(
        choices=["add", "clamp", "affine"], help_text="add, unless the vector was trained for another."
    )
    dataset = serializers.UUIDField(allow_null=True)
    dataset_version = serializers.IntegerField(allow_null=True)
    verdict = serializers.CharField(allow_blank=True, help_text="works, weak or fails, where it was measured.")
    created_at = serializers.DateTimeField()


class VectorPage(Page):
    data = VectorShape(many=True)


class LayerShape(serializers.Serializer):
    """One layer's direction, measured on pairs that did not help to build it."""

    layer = serializers.IntegerField()
    norm = serializers.FloatField()
    residual_norm = serializers.FloatField()
    sink_norm = serializers.FloatField()
    auc = serializers.FloatField(help_text="0.5 is chance.")
    d_prime = serializers.FloatField()
    split_half = serializers.FloatField()


class VectorDetail(VectorShape):
    revision = serializers.CharField(allow_blank=True)
    read_positions = serializers.CharField()
    reason = serializers.CharField(allow_blank=True, help_text="Why this layer and strength are recommended.")
    n_pairs = serializers.IntegerField()
    dataset_digest = serializers.CharField(allow_blank=True)
    residual_norms = serializers.DictField(
        child=serializers.FloatField(), help_text="One relative unit of strength, by layer."
    )
    stats = LayerShape(many=True)
    evaluation = serializers.DictField(
        child=serializers.JSONField(), help_text="What was measured on answers; empty if nothing was."
    )
    provenance = serializers.DictField(child=serializers.JSONField())


class RecipeDataset(serializers.Serializer):
    digest = serializers.CharField(allow_blank=True)
    pairs = serializers.IntegerField()
    name = serializers.CharField(allow_null=True)
    version = serializers.IntegerField(allow_null=True)


class VectorRecipe(serializers.Serializer):
    recipe = serializers.IntegerField(help_text="The version of this shape.")
    id = serializers.CharField()
    model = serializers.CharField()
    revision = serializers.CharField(allow_blank=True)
    method = serializers.CharField()
    says = serializers.CharField(help_text="What it is made of, in a sentence.")
    settings = serializers.DictField(child=serializers.JSONField())
    read_positions = serializers.CharField()
    dataset = RecipeDataset()
    recommended = serializers.DictField(child=serializers.JSONField())
    provenance = serializers.DictField(child=serializers.JSONField())
    endpoint = serializers.CharField(allow_null=True, help_text="Where to POST `build`.")
    build = serializers.DictField(child=serializers.JSONField(), allow_null=True, help_text="To build it again.")
    again = serializers.CharField(
        allow_null=True, help_text="The build page with these settings; null where it does not offer them all."
    )


def vector_to_json(vector: Vector) -> dict[str, Any]:
    facts = vector.facts
    return {
        "id": str(vector.pk),
        "name": vector.name,
        "description": vector.description,
        "starter": vector.is_starter,
        "model": vector.model_id,
        "method": vector.method,
        "content_id": vector.content_id,
        "layers": facts.layers,
        "recommended_layer": facts.layer,
        "recommended_strength": facts.dose,
        "recommended_operation": facts.operation,
        "dataset": str(vector.dataset_id) if vector.dataset_id else None,
        "dataset_version": vector.dataset_version or None,
        "verdict": vector.evaluation.get("verdict", ""),
        "created_at": vector.created_at,
    }


def vector_detail(vector: Vector) -> dict[str, Any]:
    summary = vector.summary
    return vector_to_json(vector) | {
        "revision": vector.revision,
        "read_positions": summary["read_positions"],
        "reason": summary.get("reason", ""),
        "n_pairs": summary["n_pairs"],
        "dataset_digest": summary["dataset_digest"],
        "residual_norms": {str(layer): norm for layer, norm in vector.facts.residual_norms.items()},
        "stats": summary["stats"],
        "evaluation": vector.evaluation,
        "provenance": vector.facts.provenance,
    }
