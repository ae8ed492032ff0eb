from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import Count, Sum
from django.urls import reverse
from rest_framework.request import Request
from rest_framework.response import Response

from inference.retrieval.chunks import Document as Given
from steering.api.idempotency import Answer
from steering.api.rest.base import Endpoint, created
from steering.api.rest.named import model_named
from steering.api.rest.openapi import operation
from steering.api.rest.pages import newest_first, page_of
from steering.api.rest.shapes import retrieval as shapes
from steering.api.rest.shapes.fields import PageQuery
from steering.presets import library as presets
from steering.retrieval import asking, indexing, library
from steering.retrieval.library import Draft
from steering.retrieval.models import Collection, Document, Question

COLLECTIONS = "datasets"  # the scope of what one keeps
QUESTIONS = "jobs"
EXAMPLE = {
    "question": "Who built the lighthouse of Kessin?",
    "documents": [
        {"id": "village", "text": "Aldermoor is a village of nine hundred people on the river Wend."},
        {"id": "light", "text": "The lighthouse of Kessin was built in 1874 by the engineer Mara Olsted."},
    ],
    "relevant": ["light"],
    "max_tokens": 24,
}


def counted(rows: Any) -> Any:
    return rows.annotate(size=Count("documents"), held=Sum("documents__characters"))


class Collections(Endpoint):
    scope = COLLECTIONS

    @operation(
        "collections_list",
        "List collections of documents",
        says="Your own and those that others share, newest first.",
        scope=COLLECTIONS,
        query=shapes.CollectionQuery,
        answers=shapes.CollectionPage,
    )
    def get(self, request: Request) -> Response:
        query = self.query(shapes.CollectionQuery)
        rows = Collection.objects.visible_to(request.user)
        if owner := query.get("owner"):
            rows = rows.filter(owner=request.user.pk) if owner == "me" else rows.exclude(owner=request.user.pk)
        page, cursor = newest_first(counted(rows), query)
        return Response(page_of([shapes.collection_to_json(row, request.user) for row in page], cursor))

    @operation(
        "collections_create", "Begin a collection", scope=COLLECTIONS, body=shapes.CollectionCreate,
        answers=shapes.CollectionShape, status=201, once=True,
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.CollectionCreate)

        def make() -> Answer:
            made = library.collection_create(owner=request.user, **asked)
            return created(_shown(made, request), reverse("rest:collection", args=[made.pk]))

        return self.once(make)


class OneCollection(Endpoint):
    scope = COLLECTIONS

    @operation(
        "collections_get", "Get a collection", scope=COLLECTIONS, answers=shapes.CollectionShape, errors=(404,)
    )  # fmt: skip
    def get(self, request: Request, id: UUID) -> Response:
        return Response(_shown(_visible(self, request, id), request))

    @operation(
        "collections_change", "Rename, describe or share a collection", scope=COLLECTIONS,
        body=shapes.CollectionChange, answers=shapes.CollectionShape, errors=(404,),
    )  # fmt: skip
    def patch(self, request: Request, id: UUID) -> Response:
        changed = _own(self, request, id)
        return Response(_shown(library.collection_change(changed, **self.read(shapes.CollectionChange)), request))

    @operation(
        "collections_delete", "Delete a collection", says="Its documents and its index go; answers from it stay.",
        scope=COLLECTIONS, answers=None, status=204, errors=(404,),
    )  # fmt: skip
    def delete(self, request: Request, id: UUID) -> Response:
        _own(self, request, id).delete()
        return Response(status=204)


class Documents(Endpoint):
    scope = COLLECTIONS

    @operation(
        "collections_documents", "List the documents of a collection", says="Newest first, without their texts.",
        scope=COLLECTIONS, query=PageQuery, answers=shapes.DocumentPage, errors=(404,),
    )  # fmt: skip
    def get(self, request: Request, id: UUID) -> Response:
        rows = _visible(self, request, id).documents.defer("text")
        page, cursor = newest_first(rows, self.query(PageQuery))
        return Response(page_of([shapes.document_to_json(row) for row in page], cursor))

    @operation(
        "collections_add", "Add documents to a collection", says="All of them or none.", scope=COLLECTIONS,
        body=shapes.DocumentsAdd, answers=shapes.DocumentsAdded, status=201, once=True, errors=(404,),
    )  # fmt: skip
    def post(self, request: Request, id: UUID) -> Response:
        collection = _own(self, request, id)
        drafts = [Draft(d.get("title", ""), d["text"]) for d in self.read(shapes.DocumentsAdd)["documents"]]

        def make() -> Answer:
            made = library.documents_add(collection, drafts)
            there = reverse("rest:collection-documents", args=[collection.pk])
            return created({"data": [shapes.document_to_json(row) for row in made]}, there)

        return self.once(make)


class OneDocument(Endpoint):
    scope = COLLECTIONS

    @operation(
        "collections_document", "Get a document", scope=COLLECTIONS, answers=shapes.WholeDocumentShape, errors=(404,)
    )  # fmt: skip
    def get(self, request: Request, id: UUID, document: UUID) -> Response:
        found = self.one(_visible(self, request, id).documents.all(), document)
        return Response(shapes.document_to_json(found, whole=True))

    @operation(
        "collections_document_delete", "Delete a document", scope=COLLECTIONS, answers=None, status=204, errors=(404,)
    )  # fmt: skip
    def delete(self, request: Request, id: UUID, document: UUID) -> Response:
        own: Any = Document.objects.filter(collection=_own(self, request, id)).select_related("collection")
        library.document_delete(self.one(own, document))
        return Response(status=204)


class Searches(Endpoint):
    scope = COLLECTIONS

    @operation(
        "collections_search", "Search a collection", says="By words, by meaning, or both fused by reciprocal rank.",
        scope=COLLECTIONS, body=shapes.SearchAsk, answers=shapes.SearchFound, errors=(404,),
    )  # fmt: skip
    def post(self, request: Request, id: UUID) -> Response:
        collection = _visible(self, request, id)
        asked = self.read(shapes.SearchAsk)
        found = indexing.of_collection(collection).search(asked["question"], asked["k"], asked["way"])
        return Response({"data": [shapes.hit_to_json(chunk, hit) for chunk, hit in found]})


class Raags(Endpoint):
    scope = QUESTIONS

    @operation(
        "raag_list", "List questions", says="Newest first, without what was found.", scope=QUESTIONS,
        query=shapes.RaagQuery, answers=shapes.RaagPage,
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        rows = Question.objects.owned_by(request.user).select_related("job").defer("findings")
        page, cursor = newest_first(rows, self.query(shapes.RaagQuery))
        return Response(page_of([shapes.raag_to_json(row) for row in page], cursor))

    @operation(
        "raag_create",
        "Answer from documents, with attribution",
        says="Finds passages, lets the model answer, and finds for each token of the answer the passages it rests on: "
        "foretold by attention and gradient, measured by taking each passage out. Answers at once; ask for the state.",
        scope=QUESTIONS,
        body=shapes.RaagCreate,
        answers=shapes.RaagShape,
        status=201,
        once=True,
        errors=(404,),
        asks=EXAMPLE,
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.RaagCreate)
        model = model_named(asked.get("model", ""))
        collection = _visible(self, request, asked["collection"]) if asked.get("collection") else None
        documents = [
            Given(row.get("id", str(n)), row["text"], row.get("title", ""))
            for n, row in enumerate(asked.get("documents", ()), 1)
        ]
        if preset := asked.get("preset"):
            steering = asking.steering_of_preset(presets.find_by_id(request.user, preset), model)
        else:
            steering = asking.steering_of_uses(request.user, shapes.uses_of(asked), model)

        prepared = asking.question_prepare(
            asked=shapes.asked_of(asked), model=model, collection=collection, documents=documents, steering=steering
        )

        def start() -> Answer:
            question = asking.question_start(prepared, owner=request.user, who=self.who, source="rest")
            return created(shapes.raag_to_json(question), reverse("rest:raag-one", args=[question.pk]))

        return self.once(start)


class OneRaag(Endpoint):
    scope = QUESTIONS

    @operation(
        "raag_get", "Get a question and what its answer rests on", scope=QUESTIONS, answers=shapes.WholeRaagShape,
        errors=(404,),
    )  # fmt: skip
    def get(self, request: Request, id: UUID) -> Response:
        return Response(shapes.raag_to_json(_question(self, request, id), whole=True))

    @operation(
        "raag_delete", "Delete a question", says="What still runs for it is cancelled.", scope=QUESTIONS,
        answers=None, status=204, errors=(404,),
    )  # fmt: skip
    def delete(self, request: Request, id: UUID) -> Response:
        question = _question(self, request, id)
        asking.question_cancel(question)
        question.delete()
        return Response(status=204)


class Cancellations(Endpoint):
    scope = QUESTIONS

    @operation(
        "raag_cancel", "Cancel a question", says="Harmless once it has ended.", scope=QUESTIONS,
        answers=shapes.RaagShape, errors=(404,),
    )  # fmt: skip
    def post(self, request: Request, id: UUID) -> Response:
        asking.question_cancel(_question(self, request, id))
        return Response(shapes.raag_to_json(_question(self, request, id)))


def _shown(collection: Collection, request: Request) -> dict[str, Any]:
    return shapes.collection_to_json(counted(Collection.objects.filter(pk=collection.pk)).get(), request.user)


def _visible(endpoint: Endpoint, request: Request, id: UUID) -> Collection:
    return endpoint.one(Collection.objects.visible_to(request.user), id)


def _own(endpoint: Endpoint, request: Request, id: UUID) -> Collection:
    return endpoint.one(Collection.objects.owned_by(request.user), id)


def _question(endpoint: Endpoint, request: Request, id: UUID) -> Question:
    return endpoint.one(Question.objects.owned_by(request.user).select_related("job"), id)
