from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import Http404, HttpResponse
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from inference.errors import NotFound
from inference.types import Attribute
from steering.api.idempotency import Answer
from steering.api.rest.base import Endpoint, created
from steering.api.rest.named import model_named
from steering.api.rest.openapi import operation
from steering.api.rest.pages import newest_first, page_of
from steering.api.rest.shapes import attributions as shapes
from steering.api.rest.shapes.jobs import JobShape, job_to_json
from steering.attribution import exporting, running
from steering.attribution.forms import default_name
from steering.attribution.models import Attribution, Part
from steering.refusals import storable

SCOPE = "jobs"
EXAMPLE = {
    "clean": "When Mary and John went to the store, John gave a drink to",
    "corrupted": "When Mary and John went to the store, Mary gave a drink to",
    "targets": [" Mary"],
    "against": [" John"],
}


class Attributions(Endpoint):
    scope = SCOPE

    @operation(
        "attributions_list",
        "List attributions",
        says="Newest first, without what they found.",
        scope=SCOPE,
        query=shapes.AttributionQuery,
        answers=shapes.AttributionPage,
    )
    def get(self, request: Request) -> Response:
        query = self.query(shapes.AttributionQuery)
        page, cursor = newest_first(Attribution.objects.owned_by(request.user), query)
        return Response(page_of([shapes.attribution_to_json(row) for row in page], cursor))

    @operation(
        "attributions_create",
        "Attribute an answer",
        says="Estimates what patching each place of the clean run into the corrupted run would do. The heat maps are "
        "its part `attribute`; further parts are asked for one by one.",
        scope=SCOPE,
        body=shapes.AttributionCreate,
        answers=shapes.AttributionShape,
        status=201,
        once=True,
        errors=(404,),
        asks=EXAMPLE,
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.AttributionCreate)
        model = model_named(asked.pop("model", ""))
        name = asked.pop("name", "")
        for text in (asked["clean"], asked["corrupted"], *asked.get("targets", ()), *asked.get("against", ())):
            storable(text, "A prompt or target")
        question = Attribute.from_wire({"id": "", "kind": Attribute.kind, **asked})

        def start() -> Answer:
            attribution = running.attribution_start(
                owner=request.user, name=name or default_name(question), question=question, model=model,
                who=self.who, source="rest",
            )  # fmt: skip
            there = reverse("rest:attribution", args=[attribution.pk])
            return created(shapes.attribution_to_json(attribution), there)

        return self.once(start)


class OneAttribution(Endpoint):
    scope = SCOPE

    @operation("attributions_get", "Get an attribution", scope=SCOPE, answers=shapes.AttributionShape, errors=(404,))
    def get(self, request: Request, id: UUID) -> Response:
        return Response(shapes.attribution_to_json(_own(self, request, id)))

    @operation(
        "attributions_rename",
        "Rename an attribution",
        scope=SCOPE,
        body=shapes.AttributionChange,
        answers=shapes.AttributionShape,
        errors=(404,),
    )
    def patch(self, request: Request, id: UUID) -> Response:
        attribution = _own(self, request, id)
        attribution.name = self.read(shapes.AttributionChange)["name"]
        attribution.save(update_fields=["name"])
        return Response(shapes.attribution_to_json(attribution))

    @operation(
        "attributions_delete", "Delete an attribution", says="What runs for it is cancelled.", scope=SCOPE,
        answers=None, status=204, errors=(404,),
    )  # fmt: skip
    def delete(self, request: Request, id: UUID) -> Response:
        attribution = _own(self, request, id)
        running.attribution_cancel(attribution)
        attribution.delete()
        return Response(status=204)


class Parts(Endpoint):
    scope = SCOPE

    @operation(
        "attributions_part",
        "Get what a part found",
        says="`kind` is attribute, patch-exactly, attribute-features, logit-lens or direct-logits.",
        scope=SCOPE,
        answers=shapes.FoundPartShape,
        errors=(404,),
    )
    def get(self, request: Request, id: UUID, kind: str) -> Response:
        attribution = _own(self, request, id)
        part = attribution.newest().get(shapes.PARTS.get(kind, ""))
        if part is None:
            raise Http404
        return Response(shapes.part_to_json(part) | {"findings": part.findings})


class _Asking(Endpoint):
    """A further part of an attribution."""

    scope = SCOPE

    def begin(self, attribution: Attribution, ask: Any) -> Response:
        def start() -> Answer:
            part: Part = ask(attribution)
            there = reverse("rest:attribution-part", args=[attribution.pk, part.kind.replace("_", "-")])
            return created(shapes.part_to_json(part), there, 202)

        return self.once(start)


def _asking(id: str, summary: str, says: str, body: Any) -> Any:
    return operation(
        id, summary, says=f"{says} Ask for what it found at the address in Location.", scope=SCOPE, body=body,
        answers=shapes.PartShape, status=202, once=True, errors=(404,),
    )  # fmt: skip


class Verifications(_Asking):
    @_asking(
        "attributions_verify",
        "Verify the strongest components",
        "Runs the model with the clean activation in place, one component after another.",
        shapes.Verification,
    )
    def post(self, request: Request, id: UUID) -> Response:
        attribution = _own(self, request, id)
        asked = self.read(shapes.Verification)
        each = asked["of"] == "each"
        return self.begin(
            attribution, lambda one: running.verify(one, top=asked["top"], each=each, who=self.who, source="rest")
        )


class Features(_Asking):
    @_asking("attributions_features", "Attribute to features", "To those of an SAE, at its site.", shapes.FeatureAsk)
    def post(self, request: Request, id: UUID) -> Response:
        attribution = _own(self, request, id)
        asked = self.read(shapes.FeatureAsk)
        settings = {name: asked[name] for name in ("baseline", "steps", "top")}
        return self.begin(
            attribution,
            lambda one: running.features(one, source_id=asked["source"], who=self.who, source="rest", **settings),
        )  # fmt: skip


class Lenses(_Asking):
    @_asking("attributions_lens", "Read the logit lens", "Of one of the prompts.", shapes.WhichPrompt)
    def post(self, request: Request, id: UUID) -> Response:
        attribution = _own(self, request, id)
        which = self.read(shapes.WhichPrompt)["which"]
        return self.begin(attribution, lambda one: running.lens(one, which=which, who=self.who, source="rest"))


class Directs(_Asking):
    @_asking(
        "attributions_direct",
        "Read the direct logits",
        "What each part of the model writes straight into the logit. Not for KL, which has no target.",
        shapes.WhichPrompt,
    )
    def post(self, request: Request, id: UUID) -> Response:
        attribution = _own(self, request, id)
        which = self.read(shapes.WhichPrompt)["which"]
        return self.begin(attribution, lambda one: running.direct(one, which=which, who=self.who, source="rest"))


class Exports(Endpoint):
    scope = SCOPE

    @operation(
        "attributions_export",
        "Export an attribution",
        says="JSON has the question and all that was found, CSV every place, patch and feature with its number.",
        scope=SCOPE,
        query=shapes.AttributionExportQuery,
        answers=None,
        also={(200, "application/json"): OpenApiTypes.OBJECT, (200, "text/csv"): OpenApiTypes.STR},
        errors=(404,),
    )
    def get(self, request: Request, id: UUID) -> Any:
        ending = self.query(shapes.AttributionExportQuery)["format"]
        attribution = _own(self, request, id)
        headers = {"Content-Disposition": f'attachment; filename="attribution.{ending}"'}
        if ending == "json":
            return Response(exporting.as_json(attribution), headers=headers)
        return HttpResponse("".join(exporting.as_csv(attribution)), content_type="text/csv", headers=headers)


class Maps(Endpoint):
    scope = SCOPE

    @operation(
        "attributions_map",
        "Get the model's map",
        says="Its computation graph, hooks and modules. 404 until somebody has asked for it.",
        scope=SCOPE,
        query=shapes.MapQuery,
        answers=shapes.ModelMapShape,
        errors=(404,),
    )
    def get(self, request: Request) -> Response:
        model = model_named(self.query(shapes.MapQuery).get("model", ""))
        found = running.map_of(model)
        if found is None:
            raise NotFound("not_mapped", "This model is not mapped yet. Send a POST to this address, then ask again.")
        return Response(shapes.map_to_json(found, model))

    @operation(
        "attributions_map_create",
        "Map the model",
        says="Starts a job; the map is kept for everybody.",
        scope=SCOPE,
        body=shapes.MapAsk,
        answers=JobShape,
        status=202,
        once=True,
        errors=(404,),
    )
    def post(self, request: Request) -> Response:
        model = model_named(self.read(shapes.MapAsk).get("model", ""))

        def start() -> Answer:
            job = running.map_start(owner=request.user, model=model, name=model.id, who=self.who, source="rest")
            return created(job_to_json(job), reverse("rest:attribution-map"), 202)

        return self.once(start)


def _own(endpoint: Endpoint, request: Request, id: UUID) -> Attribution:
    return endpoint.one(Attribution.objects.owned_by(request.user), id)
