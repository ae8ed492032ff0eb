from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.urls import reverse
from django.utils.datastructures import MultiValueDict
from drf_spectacular.types import OpenApiTypes
from rest_framework.request import Request
from rest_framework.response import Response

from inference.interchange import is_ours, read
from inference.types import Datapoint
from steering import gateway
from steering.api.idempotency import Answer
from steering.api.rest.base import Endpoint, created
from steering.api.rest.errors import invalid
from steering.api.rest.named import model_named
from steering.api.rest.openapi import operation
from steering.api.rest.pages import newest_first, page_of
from steering.api.rest.parsing import Parsers
from steering.api.rest.shapes import vectors as shapes
from steering.api.rest.shapes.fields import owned
from steering.api.rest.shapes.jobs import JobShape, job_to_json
from steering.datasets.models import Dataset
from steering.jobs.models import Job
from steering.vectors import builds, drafts, exports, library, optimising
from steering.vectors.files import as_file
from steering.vectors.forms import BuildForm, RenameForm, UploadForm
from steering.vectors.models import Vector

SCOPE = "vectors"


class Vectors(Endpoint):
    scope = SCOPE

    @operation(
        "vectors_list",
        "List vectors",
        says="Your own and the starters, newest first.",
        scope=SCOPE,
        query=shapes.VectorQuery,
        answers=shapes.VectorPage,
    )
    def get(self, request: Request) -> Response:
        query = self.query(shapes.VectorQuery)
        rows = owned(Vector.objects.visible_to(request.user), query).filter(name__icontains=query.get("q", ""))
        if "model" in query:
            rows = rows.filter(model_id=query["model"])
        page, cursor = newest_first(rows, query)
        return Response(page_of([shapes.vector_to_json(row) for row in page], cursor))


class Builds(Endpoint):
    scope = SCOPE

    @operation(
        "vectors_build",
        "Build a vector from a dataset",
        says="Starts a job, which leads to the vector when it has succeeded.",
        scope=SCOPE,
        body=shapes.VectorBuild,
        answers=JobShape,
        status=202,
        once=True,
        errors=(404,),
        asks={"dataset": "0b1f6a5e-6a8e-4a5c-9a5e-2f6f0a7c1d11", "name": "Calm", "chat": True},
    )
    def post(self, request: Request) -> Response:
        return _start(self, self.read(shapes.VectorBuild), builds.vector_build)


class Forecasts(Endpoint):
    scope = SCOPE

    @operation(
        "vectors_forecast",
        "Forecast how reliable a vector would be",
        says="Starts a job that compares the differences of the pairs; nothing is built. Its `result` is the forecast.",
        scope=SCOPE,
        body=shapes.VectorForecast,
        answers=JobShape,
        status=202,
        once=True,
        errors=(404,),
        asks={"dataset": "0b1f6a5e-6a8e-4a5c-9a5e-2f6f0a7c1d11"},
    )
    def post(self, request: Request) -> Response:
        return _start(self, self.read(shapes.VectorForecast) | {"action": "forecast"}, builds.forecast_start)


class Optimisations(Endpoint):
    scope = SCOPE

    @operation(
        "vectors_optimise",
        "Find a vector by gradient descent",
        says="Starts a job, whose `facts` carry the loss curve. Stop it and keep the best with `jobs/<id>/finish/`.",
        scope=SCOPE,
        body=shapes.VectorOptimise,
        answers=JobShape,
        status=202,
        once=True,
        errors=(404,),
        asks={
            "name": "Purring",
            "datapoints": [{"prompt": "My cat is", "promote": [" purring"], "suppress": [" asleep"]}],
            "layer": 9,
        },
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.VectorOptimise)
        model = model_named(asked.pop("model", ""))
        name, dataset = asked.pop("name"), asked.pop("dataset", None)
        found = self.one(Dataset.objects.visible_to(request.user), dataset) if dataset else None
        points = tuple(Datapoint.from_wire(dict(point)) for point in asked.pop("datapoints", ()))
        if bool(points) == bool(found):
            raise invalid({"datapoints": ["Give either datapoints or a dataset."]})
        if model.n_layers and asked["layer"] >= model.n_layers:
            said = f"Layer {asked['layer']} is out of range: this model has layers 0 to {model.n_layers - 1}."
            raise invalid({"layer": [said]})
        asked["kl_texts"] = tuple(asked.get("kl_texts", ()))

        def start() -> Answer:
            job = optimising.vector_optimise(
                owner=request.user,
                name=name,
                datapoints=points,
                dataset=found,
                model=model.id,
                who=self.who,
                source="rest",
                **asked,
            )
            return created(job_to_json(job), reverse("rest:job", args=[job.pk]), 202)

        return self.once(start)


class Imports(Endpoint):
    scope = SCOPE
    parser_classes = Parsers.FORM

    @operation(
        "vectors_import",
        "Import a vector",
        says="A file of Steerboard is kept at once; 200 says that it was in your library already. The file of another "
        "program starts a job (202) that measures what a unit of strength is and leads to the vector.",
        scope=SCOPE,
        body={"multipart/form-data": shapes.VectorImport},
        answers=shapes.VectorDetail,
        status=201,
        also={200: shapes.VectorDetail, 202: JobShape},
        once=True,
        errors=(404,),
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.VectorImport)
        form = UploadForm({"name": asked.get("name", "")}, MultiValueDict({"file": [asked["file"]]}))
        if not form.is_valid():
            raise invalid(form.errors)

        name, data = form.cleaned_data["name"], form.cleaned_data["file"].read()

        def take_in() -> Answer:
            told = {key: asked[key] for key in ("site", "layer", "strength", "leave_out") if key in asked}
            model = model_named(asked.get("model", ""))
            job = drafts.vector_import(
                owner=request.user, name=name, loose=read(data), model=model.id, who=self.who, source="rest", **told
            )
            return created(job_to_json(job), reverse("rest:job", args=[job.pk]), 202)

        def keep() -> Answer:
            vector, added = library.vector_upload(owner=request.user, name=name, data=data)
            where = reverse("rest:vector", args=[vector.pk])
            return created(shapes.vector_detail(vector), where, 201 if added else 200)

        if not is_ours(data):
            return self.once(take_in)
        return self.once(keep, atomic=False)  # a file's bytes are known by their content: a second time is harmless


class OneVector(Endpoint):
    scope = SCOPE

    @operation("vectors_get", "Get a vector", scope=SCOPE, answers=shapes.VectorDetail, errors=(404,))
    def get(self, request: Request, id: UUID) -> Response:
        return Response(shapes.vector_detail(_visible(self, id)))

    @operation(
        "vectors_change",
        "Rename or describe a vector",
        scope=SCOPE,
        body=shapes.VectorChange,
        answers=shapes.VectorDetail,
        errors=(404,),
        asks={"name": "Calm, layer 9"},
    )
    def patch(self, request: Request, id: UUID) -> Response:
        vector = _own(self, id)
        asked = self.read(shapes.VectorChange)
        form = RenameForm({"name": vector.name, "description": vector.description} | asked, instance=vector)
        if not form.is_valid():
            raise invalid(form.errors)
        return Response(shapes.vector_detail(form.save()))

    @operation(
        "vectors_delete",
        "Delete a vector",
        says="Refused while a preset uses it.",
        scope=SCOPE,
        answers=None,
        status=204,
        errors=(400, 404),
    )
    def delete(self, request: Request, id: UUID) -> Response:
        library.vector_delete(_own(self, id))
        return Response(status=204)


class Downloads(Endpoint):
    scope = SCOPE

    @operation(
        "vectors_download",
        "Download a vector",
        says="Safetensors have the directions and all that is known of them as metadata. In files of other programs "
        "the header X-Steerboard-Site says which of their layers is which of ours.",
        scope=SCOPE,
        query=shapes.VectorDownload,
        answers=None,
        also={(200, "application/octet-stream"): OpenApiTypes.BINARY, (200, "application/json"): OpenApiTypes.OBJECT},
        errors=(400, 404),
    )
    def get(self, request: Request, id: UUID) -> HttpResponse:
        vector = _visible(self, id)
        query = self.query(shapes.VectorDownload)
        if query["format"] == "safetensors":
            return as_file(vector, exports.vector_bytes(vector))
        layers = exports.parse_layers(query["layers"])
        return as_file(vector, exports.vector_written(vector, query["format"], layers, gateway.model_info()))


class Recipes(Endpoint):
    scope = SCOPE

    @operation(
        "vectors_recipe",
        "Get a vector's recipe",
        says="The exact settings and the digest of the dataset; `build` is a body for building it again.",
        scope=SCOPE,
        answers=shapes.VectorRecipe,
        errors=(404,),
    )
    def get(self, request: Request, id: UUID) -> Response:
        return Response(exports.recipe_of(_visible(self, id)))


def _start(endpoint: Endpoint, asked: dict[str, Any], begin: Callable[..., Job]) -> Response:
    """A build or a forecast, checked by the page's own form."""
    model = model_named(asked.pop("model", ""))
    chosen = asked | {"layers": ", ".join(map(str, asked.get("layers", ())))}
    form = BuildForm(chosen, user=endpoint.request.user, model=model)
    if not form.is_valid():
        raise invalid(form.errors)

    def start() -> Answer:
        job = begin(owner=endpoint.request.user, model=model.id, who=endpoint.who, source="rest", **form.settings())
        return created(job_to_json(job), reverse("rest:job", args=[job.pk]), 202)

    return endpoint.once(start)


def _visible(endpoint: Endpoint, id: UUID) -> Vector:
    return endpoint.one(Vector.objects.visible_to(endpoint.request.user), id)


def _own(endpoint: Endpoint, id: UUID) -> Vector:
    return endpoint.one(Vector.objects.owned_by(endpoint.request.user), id)
