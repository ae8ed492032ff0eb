from __future__ import annotations

from typing import Any
from uuid import UUID

from django.urls import reverse
from rest_framework.request import Request
from rest_framework.response import Response

from inference.types import FeatureRef
from steering.api.idempotency import Answer
from steering.api.rest.base import Endpoint, created
from steering.api.rest.errors import invalid
from steering.api.rest.named import model_named
from steering.api.rest.openapi import operation
from steering.api.rest.pages import newest_first, page_of
from steering.api.rest.shapes import features as shapes
from steering.api.rest.shapes.jobs import JobShape, job_to_json
from steering.datasets.models import Dataset
from steering.features import asking, labels, proposing, readings
from steering.features.models import FeatureLabel
from steering.features.texts import check_corpus, check_text, corpus_of
from steering.jobs.models import Job
from steering.workers.sources import check_feature, source_of

SCOPE = "vectors"
EXAMPLE = "9-res-4k"


class Sources(Endpoint):
    scope = SCOPE

    @operation(
        "features_sources",
        "List autoencoders",
        says="All that a served model can read, those with a problem too.",
        scope=SCOPE,
        query=shapes.SourceQuery,
        answers=shapes.SourceList,
        errors=(404,),
    )
    def get(self, request: Request) -> Response:
        model = model_named(self.query(shapes.SourceQuery).get("model", ""))
        return Response({"data": [shapes.source_to_json(source, model.id) for source in model.sources]})


class OneSource(Endpoint):
    scope = SCOPE

    @operation(
        "features_source",
        "Get an autoencoder",
        scope=SCOPE,
        query=shapes.SourceQuery,
        answers=shapes.SourceShape,
        errors=(404,),
    )
    def get(self, request: Request, source: str) -> Response:
        model = model_named(self.query(shapes.SourceQuery).get("model", ""))
        return Response(shapes.source_to_json(source_of(model, source), model.id))


class OneFeature(Endpoint):
    scope = SCOPE

    @operation(
        "features_describe",
        "Describe a feature",
        says="Tokens that it promotes and suppresses, nearest features, and where it fires in the indexed corpus.",
        scope=SCOPE,
        query=shapes.DescribeQuery,
        answers=shapes.FeatureDetail,
        errors=(404,),
    )
    def get(self, request: Request, source: str, index: int) -> Response:
        query = self.query(shapes.DescribeQuery)
        model = model_named(query.get("model", ""))
        ref = FeatureRef(source, index)
        found = asking.describe(self.who, model, ref, contexts=query["contexts"])
        seen = labels.labels_of(request.user, model.id, ref)
        return Response(shapes.feature_to_json(found, source, seen, request.user))


class Readings(Endpoint):
    scope = SCOPE

    @operation(
        "features_read",
        "Read the features of a text",
        says="Starts a job; ask for what it found at the address in Location.",
        scope=SCOPE,
        body=shapes.ReadingCreate,
        answers=JobShape,
        status=202,
        once=True,
        errors=(404,),
        asks={"source": EXAMPLE, "text": "The river ran over its banks.", "top": 10},
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.ReadingCreate)
        model = model_named(asked.get("model", ""))
        messages = shapes.messages_of(asked)
        for text in [asked["text"]] if "text" in asked else [message.content for message in messages]:
            check_text(text)

        def start() -> Answer:
            job = readings.reading_start(
                owner=request.user,
                model=model,
                source=asked["source"],
                text=asked.get("text", ""),
                messages=messages,
                top=asked["top"],
                overall=asked["overall"],
                features=tuple(asked.get("features", ())),
                sort_by=tuple(asked.get("sort_by", ())),
                who=self.who,
                by="rest",
            )
            return created(job_to_json(job), reverse("rest:feature-reading", args=[job.pk]), 202)

        return self.once(start)


class OneReading(Endpoint):
    scope = SCOPE

    @operation("features_reading", "Get what a reading found", scope=SCOPE, answers=shapes.ReadingResult, errors=(404,))
    def get(self, request: Request, id: UUID) -> Response:
        return Response(shapes.reading_to_json(self.one(_jobs(request, readings.READ), id)))


class Searches(Endpoint):
    scope = SCOPE

    @operation(
        "features_search",
        "Find features by example",
        says="Those that fire more on some texts than on others. Starts a job; ask for what it found at the address "
        "in Location. For a search by label, list labels; by a text, read it.",
        scope=SCOPE,
        body=shapes.SearchCreate,
        answers=JobShape,
        status=202,
        once=True,
        errors=(404,),
        asks={"source": EXAMPLE, "texts": ["I am furious!"], "against": ["I am glad that you came."]},
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.SearchCreate)
        model = model_named(asked.get("model", ""))
        texts, against = tuple(asked["texts"]), tuple(asked.get("against", ()))
        for text in (*texts, *against):
            check_text(text, "An example")

        def start() -> Answer:
            job = readings.search_start(
                owner=request.user,
                model=model,
                source=asked["source"],
                texts=texts,
                against=against,
                limit=asked["limit"],
                who=self.who,
                by="rest",
            )
            return created(job_to_json(job), reverse("rest:feature-search-found", args=[job.pk]), 202)

        return self.once(start)


class OneSearch(Endpoint):
    scope = SCOPE

    @operation("features_found", "Get what a search found", scope=SCOPE, answers=shapes.SearchResult, errors=(404,))
    def get(self, request: Request, id: UUID) -> Response:
        return Response(shapes.search_to_json(self.one(_jobs(request, readings.SEARCH), id)))


class Indices(Endpoint):
    scope = "admin"

    @operation(
        "features_index",
        "Index a corpus",
        says="Contexts, histograms and maxima of every feature come from it, for everyone on this server, who see its "
        "texts too; it replaces the one there was. Starts a job.",
        scope="admin",
        body=shapes.IndexCreate,
        answers=JobShape,
        status=202,
        once=True,
        errors=(404,),
        asks={"source": EXAMPLE, "texts": ["The river ran over its banks.", "A cat sat on the mat."]},
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.IndexCreate)
        model = model_named(asked.get("model", ""))
        if asked.get("dataset"):
            dataset = self.one(Dataset.objects.visible_to(request.user), asked["dataset"])
            texts, what = corpus_of("", dataset), f"“{dataset.name}”"
        else:
            texts, what = check_corpus(tuple(asked["texts"])), "texts over the API"

        def start() -> Answer:
            job = readings.index_start(
                owner=request.user,
                model=model,
                source=asked["source"],
                texts=texts,
                what=what,
                who=self.who,
                by="rest",
            )
            return created(job_to_json(job), reverse("rest:job", args=[job.pk]), 202)

        return self.once(start)


class Proposals(Endpoint):
    scope = SCOPE

    @operation(
        "features_propose",
        "Let the model propose a label",
        says="From the contexts of the indexed corpus. Starts a job, which leaves a label of yours that is marked as "
        "proposed; a label that you wrote stays as it is.",
        scope=SCOPE,
        body=shapes.ProposalCreate,
        answers=JobShape,
        status=202,
        once=True,
        errors=(404,),
        asks={"source": EXAMPLE, "index": 1234},
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.ProposalCreate)
        model = model_named(asked.get("model", ""))
        ref = FeatureRef(asked["source"], asked["index"])

        def start() -> Answer:
            job = proposing.proposal_start(owner=request.user, model=model, ref=ref, who=self.who, by="rest")
            return created(job_to_json(job), reverse("rest:job", args=[job.pk]), 202)

        return self.once(start)


class Labels(Endpoint):
    scope = SCOPE

    @operation(
        "features_labels",
        "List labels",
        says="Your own, and those that others share.",
        scope=SCOPE,
        query=shapes.LabelQuery,
        answers=shapes.LabelPage,
    )
    def get(self, request: Request) -> Response:
        query = self.query(shapes.LabelQuery)
        rows = FeatureLabel.objects.visible_to(request.user).select_related("owner")
        for name, field in (("source", "source"), ("index", "index"), ("model", "model_id")):
            if name in query:
                rows = rows.filter(**{field: query[name]})
        for word in query.get("q", "").split():
            rows = rows.filter(text__icontains=word)
        if query.get("mine") is not None:
            rows = rows.filter(owner=request.user) if query["mine"] else rows.exclude(owner=request.user)
        page, cursor = newest_first(rows, query)
        return Response(page_of([shapes.label_to_json(row, request.user) for row in page], cursor))

    @operation(
        "features_label",
        "Label a feature",
        says="In place of the label that you had for it.",
        scope=SCOPE,
        body=shapes.LabelCreate,
        answers=shapes.LabelShape,
        status=201,
        once=True,
        errors=(404,),
        asks={"source": EXAMPLE, "index": 1234, "text": "rivers and banks"},
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.LabelCreate)
        model = model_named(asked.get("model", ""))
        ref = FeatureRef(asked["source"], asked["index"])

        def make() -> Answer:
            check_feature(model, ref)
            label = labels.label_set(request.user, model.id, ref, asked["text"], shared=asked["shared"])
            return created(shapes.label_to_json(label, request.user), reverse("rest:feature-label", args=[label.pk]))

        return self.once(make)


class OneLabel(Endpoint):
    scope = SCOPE

    def own(self, request: Request, id: UUID) -> FeatureLabel:
        return self.one(FeatureLabel.objects.owned_by(request.user).select_related("owner"), id)

    @operation("features_label_get", "Get a label of yours", scope=SCOPE, answers=shapes.LabelShape, errors=(404,))
    def get(self, request: Request, id: UUID) -> Response:
        return Response(shapes.label_to_json(self.own(request, id), request.user))

    @operation(
        "features_label_change",
        "Change a label",
        says="With a new text it is your own word, no proposal any more.",
        scope=SCOPE,
        body=shapes.LabelChange,
        answers=shapes.LabelShape,
        errors=(404,),
        asks={"shared": False},
    )
    def patch(self, request: Request, id: UUID) -> Response:
        label, asked = self.own(request, id), self.read(shapes.LabelChange)
        if not asked:
            raise invalid({"text": "Say what to change: text or shared."})
        ref = FeatureRef(label.source, label.index)
        changed = labels.label_set(
            request.user,
            label.model_id,
            ref,
            asked.get("text", label.text),
            shared=asked.get("shared", label.shared),
            proposed=label.proposed and "text" not in asked,
        )
        return Response(shapes.label_to_json(changed, request.user))

    @operation("features_label_delete", "Delete a label", scope=SCOPE, answers=None, status=204, errors=(404,))
    def delete(self, request: Request, id: UUID) -> Response:
        self.own(request, id).delete()
        return Response(status=204)


def _jobs(request: Request, kind: str) -> Any:
    return Job.objects.owned_by(request.user).filter(kind=kind)
