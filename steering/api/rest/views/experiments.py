from __future__ import annotations

from itertools import islice
from typing import Any
from uuid import UUID

from django.urls import reverse
from rest_framework.request import Request
from rest_framework.response import Response

from inference.errors import InvalidRequest
from inference.types import ModelInfo
from steering.api.idempotency import Answer
from steering.api.rest.base import Endpoint, created
from steering.api.rest.named import model_named
from steering.api.rest.openapi import operation
from steering.api.rest.pages import newest_first, page_of
from steering.api.rest.shapes import experiments as shapes
from steering.experiments import defaults, exporting, runner
from steering.experiments.models import Experiment
from steering.experiments.settings import SETTINGS, Settings
from steering.vectors.lookup import find_vector

SCOPE = "jobs"


class Experiments(Endpoint):
    scope = SCOPE

    @operation(
        "experiments_list",
        "List experiments",
        says="Newest first.",
        scope=SCOPE,
        query=shapes.ExperimentQuery,
        answers=shapes.ExperimentPage,
    )
    def get(self, request: Request) -> Response:
        query = self.query(shapes.ExperimentQuery)
        rows = Experiment.objects.owned_by(request.user)
        rows = rows.filter(**{name: query[name] for name in ("recipe", "state") if name in query})
        page, cursor = newest_first(rows, query)
        return Response(page_of([shapes.experiment_to_json(row) for row in page], cursor))

    @operation(
        "experiments_create",
        "Start an experiment",
        says="`vector` alone is enough: what the settings leave out is filled in from it. Takes the scope `generate` "
        "too.",
        scope=SCOPE,
        body=shapes.ExperimentCreate,
        answers=shapes.ExperimentShape,
        status=201,
        once=True,
        errors=(404,),
        asks={"recipe": "find", "vector": "calm", "settings": {"layers": [8, 9, 10]}},
    )
    def post(self, request: Request) -> Response:
        self.who.require("generate")
        asked = self.read(shapes.ExperimentCreate)
        model = model_named(asked.get("model", ""))
        settings, name = _settings(request.user, asked, model)

        def start() -> Answer:
            experiment = runner.experiment_start(
                owner=request.user, recipe=asked["recipe"], name=name, settings=settings, model=model, who=self.who,
                source="api",
            )  # fmt: skip
            there = reverse("rest:experiment", args=[experiment.pk])
            return created(shapes.experiment_to_json(experiment), there)

        return self.once(start)


def _settings(user: Any, asked: dict[str, Any], model: ModelInfo) -> tuple[Settings, str]:
    """Raises InvalidRequest, NotFound."""
    given, recipe = asked.get("settings", {}), asked["recipe"]
    if "vector" not in asked:
        if not given:
            raise InvalidRequest("nothing_to_do", "Name a vector, or give whole settings.")
        return SETTINGS[recipe].from_wire(given), asked.get("name", recipe)
    vector = find_vector(user, asked["vector"], model)
    makers: dict[str, Any] = {"sweep": defaults.sweep_of, "find": defaults.find_of, "evaluate": defaults.evaluate_of}
    usual = makers[recipe](vector, model).to_wire()
    return SETTINGS[recipe].from_wire(usual | given), asked.get("name", vector.name)


class OneExperiment(Endpoint):
    scope = SCOPE

    @operation("experiments_get", "Get an experiment", scope=SCOPE, answers=shapes.ExperimentShape, errors=(404,))
    def get(self, request: Request, id: UUID) -> Response:
        return Response(shapes.experiment_to_json(_own(self, request, id)))

    @operation(
        "experiments_delete", "Delete an experiment", says="It is cancelled where it runs.", scope=SCOPE, answers=None,
        status=204, errors=(404,),
    )  # fmt: skip
    def delete(self, request: Request, id: UUID) -> Response:
        experiment = _own(self, request, id)
        runner.experiment_cancel(experiment)
        experiment.delete()
        return Response(status=204)


class Results(Endpoint):
    scope = SCOPE

    @operation(
        "experiments_results",
        "List an experiment's texts",
        says="Every completion with its scores, by condition and prompt.",
        scope=SCOPE,
        query=shapes.ResultQuery,
        answers=shapes.ResultList,
        errors=(404,),
    )
    def get(self, request: Request, id: UUID) -> Response:
        query = self.query(shapes.ResultQuery)
        experiment = _own(self, request, id)
        group = query.get("group", "")
        points = experiment.points.filter(group=group) if group else experiment.points.all()
        rows = exporting.rows_of(experiment, group)
        page = list(islice(rows, query["offset"], query["offset"] + query["limit"]))
        return Response({"data": page, "total": points.count()})


class Cancellations(Endpoint):
    scope = SCOPE

    @operation(
        "experiments_cancel",
        "Cancel an experiment",
        says="What was measured is kept. Harmless when it has ended: the answer is the experiment as it is.",
        scope=SCOPE,
        answers=shapes.ExperimentShape,
        errors=(404,),
    )
    def post(self, request: Request, id: UUID) -> Response:
        experiment = _own(self, request, id)
        runner.experiment_cancel(experiment)
        experiment.refresh_from_db()
        return Response(shapes.experiment_to_json(experiment))


class Resumptions(Endpoint):
    scope = SCOPE

    @operation(
        "experiments_resume",
        "Resume an experiment",
        says="One that failed or was cancelled goes on from what was measured. Harmless where there is nothing to "
        "resume. Takes the scope `generate` too.",
        scope=SCOPE,
        answers=shapes.ExperimentShape,
        errors=(404,),
    )
    def post(self, request: Request, id: UUID) -> Response:
        self.who.require("generate")
        experiment = _own(self, request, id)
        runner.experiment_resume(experiment, who=self.who, source="api")
        experiment.refresh_from_db()
        return Response(shapes.experiment_to_json(experiment))


def _own(endpoint: Endpoint, request: Request, id: UUID) -> Experiment:
    return endpoint.one(Experiment.objects.owned_by(request.user), id)
