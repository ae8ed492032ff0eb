from __future__ import annotations

from uuid import UUID

from django.urls import reverse
from rest_framework.request import Request
from rest_framework.response import Response

from inference.errors import InvalidRequest
from steering.api.idempotency import Answer
from steering.api.rest.base import Endpoint, created
from steering.api.rest.named import model_named
from steering.api.rest.openapi import operation
from steering.api.rest.shapes import combinations as shapes
from steering.api.rest.shapes.jobs import JobShape, job_to_json
from steering.jobs.models import Job
from steering.vectors import combining, comparing

SCOPE = "vectors"
CALM, ANGRY = "7d1c0c64-4a4e-4b6c-8f0e-0e4a3a2f9b10", "0b1f6a5e-6a8e-4a5c-9a5e-2f6f0a7c1d11"


class Combinations(Endpoint):
    scope = SCOPE

    @operation(
        "vectors_combine",
        "Combine vectors into a new one",
        says="At the layers that all have. Starts a job, which leads to the vector. Nobody has tested the result.",
        scope=SCOPE,
        body=shapes.VectorCombine,
        answers=JobShape,
        status=202,
        once=True,
        errors=(404,),
        asks={
            "name": "Calmer",
            "operation": "difference",
            "terms": [{"vector": CALM}, {"vector": ANGRY, "weight": 0.5}],
        },
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.VectorCombine)
        model = model_named(asked.get("model", ""))
        ids = [str(term["vector"]) for term in asked["terms"]]
        found = combining.visible(request.user, ids)
        terms = tuple((found[id], term["weight"]) for id, term in zip(ids, asked["terms"], strict=True))
        combination = combining.Combination(asked["name"], asked["operation"], terms)

        def start() -> Answer:
            job = combining.combine_start(
                owner=request.user, combination=combination, model=model.id, who=self.who, source="rest"
            )
            return created(job_to_json(job), reverse("rest:job", args=[job.pk]), 202)

        return self.once(start)


class Comparisons(Endpoint):
    scope = SCOPE

    @operation(
        "vectors_compare",
        "Compare vectors",
        says="Cosines, a map, norms, tokens and nearest neighbours by layer. Starts a job; ask for what it found at "
        "the address in Location.",
        scope=SCOPE,
        body=shapes.VectorCompare,
        answers=JobShape,
        status=202,
        once=True,
        errors=(404,),
        asks={"vectors": [CALM, ANGRY]},
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.VectorCompare)
        model = model_named(asked.get("model", ""))
        ids = list(dict.fromkeys(str(id) for id in asked["vectors"]))
        vectors = list(combining.visible(request.user, ids).values())

        def start() -> Answer:
            job = comparing.comparison_start(
                owner=request.user, vectors=vectors, model=model.id, who=self.who, source="rest"
            )
            return created(job_to_json(job), reverse("rest:vector-comparison", args=[job.pk]), 202)

        return self.once(start)


class OneComparison(Endpoint):
    scope = SCOPE

    @operation(
        "vectors_comparison",
        "Get what a comparison found",
        scope=SCOPE,
        answers=shapes.ComparisonShape,
        errors=(404,),
    )
    def get(self, request: Request, id: UUID) -> Response:
        job = self.one(Job.objects.owned_by(request.user).filter(kind=comparing.KIND), id)
        found = None
        if job.state == Job.State.SUCCEEDED:
            try:
                vectors = list(combining.visible(request.user, job.request["vectors"]).values())
                found = comparing.found_by(job, request.user, vectors)
            except InvalidRequest:
                found = None  # one of the vectors was deleted since
        return Response(shapes.comparison_to_json(job, found))
