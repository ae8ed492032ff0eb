"""Features of sparse autoencoders: sources, readings of texts, single features, searches, labels."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from inference.types import Message, SourceInfo
from steering.api.rest.shapes.fields import MAX_WHOLE, Choice, Flag, Id, Page, PageQuery, Strict, Text, Whole
from steering.features.models import MAX_LABEL, FeatureLabel
from steering.features.texts import MAX_CHARS, MAX_CORPUS_TEXTS, MAX_EXAMPLES
from steering.jobs.models import Job

MAX_SOURCE = 120
MAX_INDEX = 2**31 - 1
STATES = [state.value for state in Job.State]


def model_field() -> Text:
    return Text(
        required=False, allow_blank=True, max_length=300, help_text="A served model; the default one, if empty."
    )


class FeatureShape(Strict):
    """A latent of an autoencoder."""

    source = Text(max_length=MAX_SOURCE, help_text="The autoencoder's id, such as 9-res-4k.")
    index = Whole(max_value=MAX_INDEX)


class SourceQuery(Strict):
    model = serializers.CharField(
        required=False, max_length=300, help_text="A served model; the default one, if left out."
    )


class DescribeQuery(SourceQuery):
    contexts = serializers.IntegerField(default=20, min_value=0, max_value=50, help_text="How many at most, 0 to 50.")


class SourceShape(serializers.Serializer):
    id = serializers.CharField(help_text="Its layer and a name.")
    model = serializers.CharField()
    hook_name = serializers.CharField(help_text="Where it reads, as TransformerLens names it.")
    layer = serializers.IntegerField()
    width = serializers.IntegerField(help_text="Features count from 0 to one less.")
    architecture = serializers.CharField()
    bytes = serializers.IntegerField()
    loaded = serializers.BooleanField()
    origin = serializers.CharField(allow_blank=True)
    indexed = serializers.BooleanField(help_text="Contexts, histograms and maxima of a corpus are known.")
    facts = serializers.DictField(child=serializers.JSONField(), help_text="What is known of its training.")
    problem = serializers.CharField(allow_blank=True, help_text="Why it cannot be used, and what to do.")


class SourceList(serializers.Serializer):
    data = SourceShape(many=True)


def source_to_json(source: SourceInfo, model: str) -> dict[str, Any]:
    return source.to_wire() | {"model": model}


# ---- reading ----


class MessageShape(Strict):
    role = Choice(choices=["system", "user", "assistant"])
    content = Text(max_length=MAX_CHARS)


class ReadingCreate(Strict):
    """Give `text` or `messages`."""

    source = Text(max_length=MAX_SOURCE)
    text = Text(required=False, max_length=MAX_CHARS)
    messages = MessageShape(many=True, required=False, min_length=1, max_length=200)
    top = Whole(default=10, min_value=1, max_value=50, help_text="Features per token.")
    overall = Whole(default=50, min_value=1, max_value=1000, help_text="Features of the whole text.")
    features = serializers.ListField(
        child=Whole(max_value=MAX_INDEX),
        required=False,
        max_length=100,
        help_text="Whose values at every token to give.",
    )
    sort_by = serializers.ListField(
        child=Whole(max_value=MAX_WHOLE),
        required=False,
        max_length=2048,
        help_text="Places of tokens: `sorted` has the features with the largest sum over them.",
    )
    model = model_field()

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        if ("text" in data) == ("messages" in data):
            raise serializers.ValidationError({"text": "Give either a text or messages."})
        return data


def messages_of(asked: dict[str, Any]) -> tuple[Message, ...]:
    return tuple(Message(one["role"], one["content"]) for one in asked.get("messages", ()))


class ReadTokenShape(serializers.Serializer):
    id = serializers.IntegerField()
    text = serializers.CharField(allow_blank=True)


class ValueShape(serializers.Serializer):
    index = serializers.IntegerField()
    value = serializers.FloatField()


class OverallShape(ValueShape):
    token = serializers.IntegerField(help_text="The place at which it was largest.")


class ReadingShape(serializers.Serializer):
    """Special tokens and attention sinks are read, but left out of `overall` and the figures."""

    tokens = ReadTokenShape(many=True)
    top = serializers.ListField(child=ValueShape(many=True), help_text="Of each token, the largest first.")
    overall = OverallShape(many=True)
    sorted = OverallShape(many=True, help_text="By the sum over `sort_by`; empty where that was not asked for.")
    values = serializers.DictField(
        child=serializers.ListField(child=serializers.FloatField()), help_text="At every token, by feature."
    )
    left_out = serializers.ListField(child=serializers.IntegerField(), help_text="Places.")
    explained_variance = serializers.FloatField(allow_null=True)
    l0 = serializers.FloatField(allow_null=True, help_text="Features on per token, in the mean.")


class ReadingResult(serializers.Serializer):
    id = serializers.UUIDField(help_text="The job's.")
    state = serializers.ChoiceField(choices=STATES)
    source = serializers.CharField()
    reading = ReadingShape(allow_null=True, help_text="null until the job has succeeded.")


def reading_to_json(job: Job) -> dict[str, Any]:
    found = job.result if job.state == Job.State.SUCCEEDED else None
    return {
        "id": str(job.pk),
        "state": job.state,
        "source": job.request.get("source", ""),
        "reading": _reading(found) if found else None,
    }


def _reading(found: dict[str, Any]) -> dict[str, Any]:
    overall = [{"index": i, "value": value, "token": token} for i, value, token in found.get("overall", ())]
    ranked = [{"index": i, "value": value, "token": token} for i, value, token in found.get("sorted") or ()]
    return {
        "tokens": [{"id": id, "text": text} for id, text in found.get("tokens", ())],
        "top": [[{"index": i, "value": value} for i, value in row] for row in found.get("top", ())],
        "overall": overall,
        "sorted": ranked,
        "values": found.get("values") or {},
        "left_out": found.get("left_out", []),
        "explained_variance": found.get("explained_variance"),
        "l0": found.get("l0"),
    }


# ---- one feature ----


class LabelShape(serializers.Serializer):
    id = serializers.UUIDField()
    model = serializers.CharField()
    source = serializers.CharField()
    index = serializers.IntegerField()
    text = serializers.CharField()
    proposed = serializers.BooleanField(help_text="A model wrote it, and nobody has changed it since.")
    shared = serializers.BooleanField(help_text="Everyone on this server sees it.")
    mine = serializers.BooleanField()
    by = serializers.CharField(help_text="Whose it is.")
    updated_at = serializers.DateTimeField()


def label_to_json(label: FeatureLabel, user: Any) -> dict[str, Any]:
    return {
        "id": str(label.pk),
        "model": label.model_id,
        "source": label.source,
        "index": label.index,
        "text": label.text,
        "proposed": label.proposed,
        "shared": label.shared,
        "mine": label.owner_id == user.pk,
        "by": str(label.owner),
        "updated_at": label.updated_at,
    }


class TokenEffectShape(serializers.Serializer):
    id = serializers.IntegerField()
    text = serializers.CharField(allow_blank=True)
    change = serializers.FloatField(help_text="Of its logit, against the average token's.")


class NearFeatureShape(serializers.Serializer):
    index = serializers.IntegerField()
    cosine = serializers.FloatField(help_text="Of the two decoder directions.")


class HistogramShape(serializers.Serializer):
    edges = serializers.ListField(child=serializers.FloatField())
    counts = serializers.ListField(child=serializers.IntegerField())


class ContextShape(serializers.Serializer):
    tokens = serializers.ListField(child=serializers.CharField(allow_blank=True))
    values = serializers.ListField(child=serializers.FloatField())
    at = serializers.IntegerField(help_text="The place of the largest.")


class FeatureDetail(serializers.Serializer):
    """From `max_activation` to `contexts` things come from the indexed corpus: null or empty where there is none."""

    source = serializers.CharField()
    index = serializers.IntegerField()
    decoder_norm = serializers.FloatField()
    residual_norm = serializers.FloatField(allow_null=True, help_text="What 1 relative is worth.")
    promotes = TokenEffectShape(many=True)
    suppresses = TokenEffectShape(many=True)
    nearest = NearFeatureShape(many=True)
    max_activation = serializers.FloatField(allow_null=True)
    density = serializers.FloatField(allow_null=True, help_text="Share of the corpus's tokens on which it fires.")
    histogram = HistogramShape(help_text="Of activations above 0.")
    contexts = ContextShape(many=True)
    labels = LabelShape(many=True, help_text="Your own first.")


def feature_to_json(found: dict[str, Any], source: str, labels: list[FeatureLabel], user: Any) -> dict[str, Any]:
    effects = {
        name: [{"id": id, "text": text, "change": change} for id, text, change in found[name]]
        for name in ("promotes", "suppresses")
    }
    same = ("index", "decoder_norm", "residual_norm", "max_activation", "density", "contexts")
    return {
        "source": source,
        **{name: found.get(name) for name in same},
        **effects,
        "nearest": [{"index": i, "cosine": cosine} for i, cosine in found["nearest"]],
        "histogram": found.get("histogram") or {"edges": [], "counts": []},
        "labels": [label_to_json(label, user) for label in labels],
    }


# ---- search, index, labels ----


class SearchCreate(Strict):
    source = Text(max_length=MAX_SOURCE)
    texts = serializers.ListField(
        child=Text(max_length=MAX_CHARS), min_length=1, max_length=MAX_EXAMPLES, help_text="In which it should fire."
    )
    against = serializers.ListField(
        child=Text(max_length=MAX_CHARS),
        required=False,
        max_length=MAX_EXAMPLES,
        help_text="Texts to compare with; the means of the indexed corpus, if left out.",
    )
    limit = Whole(default=50, min_value=1, max_value=200)
    model = model_field()


class FoundFeatureShape(serializers.Serializer):
    index = serializers.IntegerField()
    mean = serializers.FloatField(help_text="Over the tokens of the examples.")
    baseline = serializers.FloatField()
    lift = serializers.FloatField(help_text="The mean less the baseline, by which they are ranked.")
    max = serializers.FloatField()
    token = serializers.CharField(allow_blank=True, help_text="At which it was largest.")


class SearchResult(serializers.Serializer):
    id = serializers.UUIDField(help_text="The job's.")
    state = serializers.ChoiceField(choices=STATES)
    source = serializers.CharField()
    found = FoundFeatureShape(many=True, allow_null=True, help_text="null until the job has succeeded.")


def search_to_json(job: Job) -> dict[str, Any]:
    found = job.result.get("found", []) if job.state == Job.State.SUCCEEDED else None
    return {"id": str(job.pk), "state": job.state, "source": job.request.get("source", ""), "found": found}


class IndexCreate(Strict):
    """Give `texts` or a `dataset`, both sides of whose pairs are read."""

    source = Text(max_length=MAX_SOURCE)
    texts = serializers.ListField(
        child=Text(max_length=MAX_CHARS), required=False, min_length=1, max_length=MAX_CORPUS_TEXTS
    )
    dataset = Id(required=False, allow_null=True)
    model = model_field()

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        if bool(data.get("texts")) == bool(data.get("dataset")):
            raise serializers.ValidationError({"texts": "Give either texts or a dataset."})
        return data


class ProposalCreate(FeatureShape):
    """Which feature the model is to name."""

    model = model_field()


class LabelQuery(PageQuery):
    q = serializers.CharField(required=False, max_length=200, help_text="Only those that hold every word.")
    source = serializers.CharField(required=False, max_length=MAX_SOURCE)
    index = serializers.IntegerField(required=False, min_value=0, max_value=MAX_INDEX)
    model = serializers.CharField(required=False, max_length=300, help_text="Of this model; of all, if left out.")
    mine = serializers.BooleanField(required=False, help_text="Only your own, or only those of others.")


class LabelCreate(FeatureShape):
    text = Text(max_length=MAX_LABEL)
    shared = Flag(default=True, help_text="Everyone on this server sees it, with your name.")
    model = model_field()


class LabelChange(Strict):
    text = Text(required=False, max_length=MAX_LABEL)
    shared = Flag(required=False)


class LabelPage(Page):
    data = LabelShape(many=True)
