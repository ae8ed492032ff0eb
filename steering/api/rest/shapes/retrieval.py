"""Collections of documents, and questions answered from them."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from rest_framework import serializers

from inference.retrieval.chunks import MOST_DOCUMENT_CHARACTERS, MOST_DOCUMENTS
from inference.retrieval.index import MOST_FOUND, WAYS
from inference.retrieval.layout import LONGEST_INSTRUCTION, LONGEST_QUESTION
from steering.api.rest.shapes.fields import MAX_WHOLE, Choice, Flag, Id, Number, Page, PageQuery, Strict, Text, Title
from steering.api.rest.shapes.fields import Whole as WholeField
from steering.api.rest.shapes.jobs import STATES, JobErrorShape
from steering.api.rest.shapes.steering import UseShape, use_to_wire
from steering.retrieval import asking
from steering.retrieval.models import LONGEST_TITLE, Document, Question
from steering.vectors.uses import MAX_USES, VectorUse

LONGEST_ID = 120
MOST_ADDED = 100


# ---- collections ----


class CollectionCreate(Strict):
    name = Title()
    description = Text(required=False, allow_blank=True, max_length=1000)
    shared = Flag(default=False, help_text="Whether everybody here may read and ask it.")


class CollectionChange(Strict):
    name = Title(required=False)
    description = Text(required=False, allow_blank=True, max_length=1000)
    shared = Flag(required=False)


class CollectionQuery(PageQuery):
    owner = serializers.ChoiceField(
        choices=["me", "others"], required=False, help_text="Only your own, or only those that others share."
    )


class CollectionShape(serializers.Serializer):
    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField(allow_blank=True)
    shared = serializers.BooleanField()
    mine = serializers.BooleanField()
    documents = serializers.IntegerField()
    characters = serializers.IntegerField()
    version = serializers.IntegerField(help_text="Grows with every change of its documents.")
    created_at = serializers.DateTimeField()


class CollectionPage(Page):
    data = CollectionShape(many=True)


class DocumentAdd(Strict):
    title = Text(required=False, allow_blank=True, max_length=LONGEST_TITLE, help_text="Its first words, if left out.")
    text = Text(max_length=MOST_DOCUMENT_CHARACTERS, help_text="Markup in it is text.")


class DocumentsAdd(Strict):
    documents = DocumentAdd(many=True, min_length=1, max_length=MOST_ADDED)


class DocumentShape(serializers.Serializer):
    id = serializers.UUIDField()
    title = serializers.CharField()
    characters = serializers.IntegerField()
    created_at = serializers.DateTimeField()


class WholeDocumentShape(DocumentShape):
    text = serializers.CharField()


class DocumentPage(Page):
    data = DocumentShape(many=True)


class DocumentsAdded(serializers.Serializer):
    data = DocumentShape(many=True)


class SearchAsk(Strict):
    question = Text(max_length=LONGEST_QUESTION)
    k = WholeField(default=5, min_value=1, max_value=MOST_FOUND)
    way = Choice(choices=list(WAYS), default="hybrid", help_text="By words (BM25), by meaning (vectors), or both.")


class HitShape(serializers.Serializer):
    chunk = serializers.CharField(help_text="`<document>#<number>`, which labels may name.")
    document = serializers.CharField()
    title = serializers.CharField(allow_blank=True)
    text = serializers.CharField()
    start = serializers.IntegerField(help_text="Characters of the document.")
    stop = serializers.IntegerField()
    score = serializers.FloatField(help_text="The sum of 1 / (60 + rank) over both rankings.")
    by_words = serializers.IntegerField(allow_null=True, help_text="Rank, from 1.")
    by_meaning = serializers.IntegerField(allow_null=True)
    bm25 = serializers.FloatField()
    cosine = serializers.FloatField()


class SearchFound(serializers.Serializer):
    data = HitShape(many=True)


# ---- questions ----


class GivenDocument(Strict):
    id = Text(required=False, max_length=LONGEST_ID, help_text="Its number from 1, if left out.")
    title = Text(required=False, allow_blank=True, max_length=LONGEST_TITLE)
    text = Text(max_length=MOST_DOCUMENT_CHARACTERS)


class RaagCreate(Strict):
    """Give `documents`, or a `collection`."""

    question = Text(max_length=LONGEST_QUESTION)
    collection = Id(required=False, allow_null=True)
    documents = GivenDocument(many=True, required=False, max_length=MOST_DOCUMENTS)
    k = WholeField(default=5, min_value=1, max_value=asking.MOST_PASSAGES, help_text="Passages, at most.")
    way = Choice(choices=list(WAYS), default="hybrid", help_text="By words (BM25), by meaning (vectors), or both.")
    instruction = Text(required=False, allow_blank=True, max_length=LONGEST_INSTRUCTION)
    answer = Text(
        required=False, allow_blank=True, max_length=asking.LONGEST_ANSWER,
        help_text="To be attributed as it stands; the model writes one, if left out.",
    )  # fmt: skip
    max_tokens = WholeField(default=48, min_value=1, max_value=asking.MOST_TOKENS)
    temperature = Number(default=0.0, min_value=0, max_value=5, help_text="0 is greedy.")
    seed = WholeField(required=False, allow_null=True, max_value=MAX_WHOLE)
    epsilon = Number(default=0.1, min_value=0, max_value=100, help_text="The least drop of a link, in nats.")
    relevant = serializers.ListField(
        child=Text(max_length=200), required=False, max_length=asking.MOST_LABELS,
        help_text="Ids of documents or chunks that hold the answer: then rankings are measured.",
    )  # fmt: skip
    interventions = UseShape(many=True, required=False, max_length=MAX_USES)
    preset = Id(required=False, allow_null=True, help_text="Its vectors and its system prompt, in place of the above.")
    model = Text(
        required=False, allow_blank=True, max_length=300, help_text="A served model; the default one, if empty."
    )

    def validate(self, data: dict[str, Any]) -> dict[str, Any]:
        if bool(data.get("collection")) == bool(data.get("documents")):
            raise serializers.ValidationError({"documents": "Give documents, or a collection: exactly one of the two."})
        if data.get("preset") and data.get("interventions"):
            raise serializers.ValidationError({"preset": "Give a preset or interventions, not both."})
        return data


class RaagQuery(PageQuery):
    pass


class RaagShape(serializers.Serializer):
    id = serializers.UUIDField()
    question = serializers.CharField()
    state = serializers.ChoiceField(choices=STATES)
    model = serializers.CharField()
    revision = serializers.CharField(allow_blank=True)
    collection = serializers.UUIDField(allow_null=True)
    settings = serializers.DictField(child=serializers.JSONField(), help_text="What was asked, passages included.")
    job = serializers.UUIDField(allow_null=True, help_text="Follow it there.")
    error = JobErrorShape(allow_null=True)
    page = serializers.CharField(help_text="Where people look at it.")
    created_at = serializers.DateTimeField()


class WholeRaagShape(RaagShape):
    findings = serializers.DictField(
        child=serializers.JSONField(),
        allow_null=True,
        help_text="Null until it has succeeded. answer_tokens, prompt_tokens, spans, drops, edges, rankings.",
    )


class RaagPage(Page):
    data = RaagShape(many=True)


def asked_of(asked: dict[str, Any]) -> asking.Asked:
    names = ("k", "way", "instruction", "answer", "max_tokens", "temperature", "seed", "epsilon")
    given = {name: asked[name] for name in names if name in asked}
    return asking.Asked(asked["question"], relevant=tuple(asked.get("relevant", ())), **given)


def uses_of(asked: dict[str, Any]) -> tuple[VectorUse, ...]:
    return tuple(VectorUse.from_wire(use_to_wire(use)) for use in asked.get("interventions", ()))


def collection_to_json(collection: Any, user: Any) -> dict[str, Any]:
    """Of one with `size` and `total_characters`, as `counted` gives it."""
    facts = {name: getattr(collection, name) for name in ("name", "description", "shared", "version", "created_at")}
    mine = collection.owner_id == user.pk
    return facts | {
        "id": str(collection.pk), "mine": mine, "documents": collection.size, "characters": collection.held or 0
    }  # fmt: skip


def document_to_json(document: Document, *, whole: bool = False) -> dict[str, Any]:
    facts = {name: getattr(document, name) for name in ("title", "characters", "created_at")}
    return {"id": str(document.pk)} | facts | ({"text": document.text} if whole else {})


def hit_to_json(chunk: Any, hit: Any) -> dict[str, Any]:
    found = {name: getattr(chunk, name) for name in ("document", "title", "text", "start", "stop")}
    ranked = {name: getattr(hit, name) for name in ("score", "by_words", "by_meaning", "bm25", "cosine")}
    return {"chunk": chunk.id} | found | ranked


def raag_to_json(question: Question, *, whole: bool = False) -> dict[str, Any]:
    return {
        "id": str(question.pk),
        "question": question.text,
        "state": question.state,
        "model": question.model_id,
        "revision": question.revision,
        "collection": str(question.collection_id) if question.collection_id else None,
        "settings": question.settings,
        "job": str(question.job_id) if question.job_id else None,
        "error": question.error,
        "page": reverse("retrieval:question", args=[question.pk]),
        "created_at": question.created_at,
    } | ({"findings": question.findings} if whole else {})
