from __future__ import annotations

from typing import Any, get_args

from django.conf import settings
from django.http import Http404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response

from inference.types import Command
from steering import gateway
from steering.access.principal import Principal
from steering.api.rest.base import Endpoint
from steering.api.rest.named import model_named
from steering.api.rest.openapi import operation
from steering.api.rest.shapes import served as shapes
from steering.workers.control import worker_ask

WITHOUT_MODEL = [command for command in get_args(Command) if command != "load"]
COMMAND = OpenApiParameter("command", OpenApiTypes.STR, OpenApiParameter.PATH, enum=WITHOUT_MODEL)


class Models(Endpoint):
    @operation(
        "models_list",
        "List models",
        says="Those that are served now; none while that cannot be known.",
        answers=shapes.ModelList,
    )
    def get(self, request: Request) -> Response:
        return Response({"data": [shapes.model_to_json(info) for info in gateway.models()]})


class DefaultModel(Endpoint):
    @operation(
        "models_default",
        "Describe the default model",
        says="The one that answers where a request names none, with its load.",
        answers=shapes.ModelShape,
    )
    def get(self, request: Request) -> Response:
        return Response(shapes.model_to_json(gateway.model_info()))


class OneModel(Endpoint):
    @operation("models_get", "Describe a model", says="With its load.", answers=shapes.ModelShape, errors=(404,))
    def get(self, request: Request, id: str) -> Response:
        return Response(shapes.model_to_json(model_named(id)))


class ForStaff(Endpoint):
    """Others do not learn that there is such a thing. A key of staff needs the scope besides."""

    scope = "admin"

    def authorize(self, who: Principal) -> None:
        if not who.user.is_staff:
            raise Http404
        super().authorize(who)


class Workers(ForStaff):
    @operation(
        "workers_list",
        "List workers",
        says="The processes that hold models. For staff.",
        scope="admin",
        answers=shapes.WorkerList,
        errors=(404,),
    )
    def get(self, request: Request) -> Response:
        found = gateway.call(gateway.inference().workers(), 5)
        data = [shapes.worker_to_json(worker) for worker in found]
        return Response({"data": data, "loadable": list(settings.STEERBOARD_MODELS)})


class Loads(ForStaff):
    @operation(
        "workers_load",
        "Load a model into a worker",
        says="In place of what it has; what runs there has 30 s to finish. For staff.",
        scope="admin",
        body=shapes.WorkerLoad,
        answers=shapes.WorkerAsked,
        status=202,
        errors=(404,),
        asks={"model": "default"},
    )
    def post(self, request: Request, id: str) -> Response:
        return _asked(id, "load", self.read(shapes.WorkerLoad)["model"])


class Commands(ForStaff):
    @operation(
        "workers_command",
        "Unload, drain or resume a worker",
        says="unload gives up its model, drain finishes what runs and takes nothing new, resume takes work again. For "
        "staff.",
        scope="admin",
        answers=shapes.WorkerAsked,
        status=202,
        errors=(404,),
        more=(COMMAND,),
    )
    def post(self, request: Request, id: str, command: str) -> Response:
        if command not in WITHOUT_MODEL:
            raise Http404
        return _asked(id, command)


def _asked(worker_id: str, command: str, model: str = "") -> Response:
    answer: dict[str, Any] = {"message": worker_ask(worker_id, command, model)}
    return Response(answer, status=202)
