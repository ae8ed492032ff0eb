from __future__ import annotations

from typing import Any
from uuid import UUID

from django.urls import reverse
from rest_framework.request import Request
from rest_framework.response import Response

from steering.api.idempotency import Answer
from steering.api.rest.base import Endpoint, created
from steering.api.rest.errors import invalid
from steering.api.rest.named import model_named
from steering.api.rest.openapi import operation
from steering.api.rest.pages import named_and_owned, newest_first, page_of
from steering.api.rest.shapes import behaviors as shapes
from steering.api.rest.shapes.jobs import JobShape, job_to_json
from steering.behaviors import fitting, library, monitoring, reading
from steering.behaviors.choosing import Correction
from steering.behaviors.corrector import Corrector
from steering.behaviors.models import Alert, AlertRule, Behavior
from steering.datasets.models import Dataset

SCOPE = "vectors"
EXAMPLE = {"dataset": "0b1f6a5e-6a8e-4a5c-9a5e-2f6f0a7c1d11", "name": "anger", "false_positive_rate": 0.02}


class Behaviors(Endpoint):
    scope = SCOPE

    @operation(
        "behaviors_list",
        "List behaviors",
        says="All versions of what you may use: your own, those that come with Steerboard, and what others share.",
        scope=SCOPE,
        query=shapes.BehaviorQuery,
        answers=shapes.BehaviorPage,
    )
    def get(self, request: Request) -> Response:
        query = self.query(shapes.BehaviorQuery)
        rows = library.listed(request.user, query.get("model", ""))
        page, cursor = newest_first(named_and_owned(rows, query, request.user), query)
        return Response(page_of([shapes.behavior_to_json(row, request.user) for row in page], cursor))


class Fits(Endpoint):
    scope = SCOPE

    @operation(
        "behaviors_fit",
        "Fit a behavior",
        says="Starts a job, which leads to the behavior when it has succeeded: version 1.0, or the next of its name.",
        scope=SCOPE,
        body=shapes.BehaviorFit,
        answers=JobShape,
        status=202,
        once=True,
        errors=(404,),
        asks=EXAMPLE,
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.BehaviorFit)
        model = model_named(asked.pop("model", ""))
        dataset = self.one(Dataset.objects.visible_to(request.user), asked.pop("dataset"))
        settings = _settings(asked)
        if model.n_layers and any(layer >= model.n_layers for layer in settings.layers):
            raise invalid({"layers": f"This model has layers 0 to {model.n_layers - 1}."})

        def start() -> Answer:
            job = fitting.behavior_fit(
                owner=request.user, dataset=dataset, settings=settings, model=model, who=self.who, source="rest"
            )
            return created(job_to_json(job), reverse("rest:job", args=[job.pk]), 202)

        return self.once(start)


def _settings(asked: dict[str, Any]) -> fitting.FitSettings:
    correction = asked.pop("correction", None) or {}
    uses = shapes.correction_to_wire(correction)["uses"] if correction else []
    strength = correction.pop("strength", None)
    correction.pop("uses", None)
    wire = {**correction, "strength": strength} | ({"uses": uses} if uses else {})
    return fitting.FitSettings(
        **{**asked, "layers": tuple(asked.get("layers", ())), "source": asked.get("source", "")},
        correction=Correction.from_wire(wire),
    )


class OneBehavior(Endpoint):
    scope = SCOPE

    @operation("behaviors_get", "Get a behavior", scope=SCOPE, answers=shapes.BehaviorDetail, errors=(404,))
    def get(self, request: Request, id: UUID) -> Response:
        return Response(shapes.behavior_detail(_listed(self, id), request.user))

    @operation(
        "behaviors_change",
        "Share, describe, or keep samples",
        says="What a version detects and does never changes: make a new version for that.",
        scope=SCOPE,
        body=shapes.BehaviorChange,
        answers=shapes.BehaviorDetail,
        errors=(404,),
        asks={"shared": True},
    )
    def patch(self, request: Request, id: UUID) -> Response:
        behavior = _own(self, id)
        asked = self.read(shapes.BehaviorChange)
        if "description" in asked:
            behavior.describe(asked["description"])
        if "shared" in asked:
            library.share(behavior, asked["shared"])
        if "keep_samples" in asked:
            monitoring.samples_switch(behavior, asked["keep_samples"])
        return Response(shapes.behavior_detail(behavior, request.user))

    @operation(
        "behaviors_delete",
        "Delete a behavior",
        says="This version, with its counts, alerts and samples. Vectors and datasets stay.",
        scope=SCOPE,
        answers=None,
        status=204,
        errors=(404,),
    )
    def delete(self, request: Request, id: UUID) -> Response:
        library.delete(_own(self, id))
        return Response(status=204)


class Versions(Endpoint):
    scope = SCOPE

    @operation(
        "behaviors_version",
        "Make a new version",
        says="The same detector with another threshold or correction. The version that it is made from stays.",
        scope=SCOPE,
        body=shapes.VersionCreate,
        answers=shapes.BehaviorDetail,
        status=201,
        once=True,
        errors=(404,),
        asks={"threshold": 1.25},
    )
    def post(self, request: Request, id: UUID) -> Response:
        behavior = _own(self, id)
        asked = self.read(shapes.VersionCreate)
        same = [other.version for other in library.versions_of(request.user, behavior)]
        corrector = behavior.corrects
        if asked.get("correction"):
            corrector = Corrector.from_wire(shapes.correction_to_wire(asked["correction"]))

        def save() -> Answer:
            new = library.save_version(
                behavior,
                version=asked.get("version") or library.next_version(same),
                threshold=asked.get("threshold", behavior.threshold),
                corrector=corrector,
                description=asked.get("description", behavior.description),
            )
            return created(shapes.behavior_detail(new, request.user), reverse("rest:behavior", args=[new.pk]))

        return self.once(save)


class Readings(Endpoint):
    scope = SCOPE

    @operation(
        "behaviors_read",
        "Read a text with a behavior",
        says="Starts a job. Its scores are at `behaviors/<id>/read/<job>/`.",
        scope=SCOPE,
        body=shapes.BehaviorRead,
        answers=JobShape,
        status=202,
        once=True,
        errors=(404,),
        asks={"text": "You are wrong, and you know it."},
    )
    def post(self, request: Request, id: UUID) -> Response:
        behavior = _listed(self, id)
        asked = self.read(shapes.BehaviorRead)
        model_named(behavior.model_id)  # it is said now, not by the job, where its model is not served

        def start() -> Answer:
            job = reading.reading_start(owner=request.user, behavior=behavior, who=self.who, source="rest", **asked)
            where = reverse("rest:behavior-reading", args=[behavior.pk, job.pk])
            return created(job_to_json(job), where, 202)

        return self.once(start)


class OneReading(Endpoint):
    scope = SCOPE

    @operation(
        "behaviors_reading",
        "Get what a behavior read",
        says="`state` is that of the job; `tokens` are null until it has succeeded, and fire above `threshold`.",
        scope=SCOPE,
        answers=shapes.BehaviorReadingShape,
        errors=(404,),
    )
    def get(self, request: Request, id: UUID, job: UUID) -> Response:
        behavior = _listed(self, id)
        found = self.one(reading.readings_of(request.user, behavior), job)
        return Response(shapes.reading_to_json(found, behavior))


class Monitoring(Endpoint):
    scope = SCOPE

    @operation(
        "behaviors_monitoring",
        "How often a behavior was seen",
        says="Your own runs by day and key; of a behavior that you share, those of others too, all together.",
        scope=SCOPE,
        query=shapes.MonitoringQuery,
        answers=shapes.MonitoringShape,
        errors=(404,),
    )
    def get(self, request: Request, id: UUID) -> Response:
        behavior = _listed(self, id)
        query = self.query(shapes.MonitoringQuery)
        seen = shapes.figures_to_json(monitoring.figures(request.user, behavior, query["days"]))
        mine = behavior.owner_id == request.user.pk
        rule = AlertRule.objects.filter(behavior=behavior).first() if mine else None
        raised = Alert.objects.filter(behavior=behavior)[:30] if mine else ()
        alerts = [
            {
                "day": str(a.day),
                "watched": a.watched,
                "fired": a.fired,
                "percent": a.percent,
                "mailed": bool(a.mailed_at),
            }
            for a in raised
        ]
        return Response({**seen, "rule": shapes.rule_to_json(rule), "alerts": alerts})


class Rules(Endpoint):
    scope = SCOPE

    @operation(
        "behaviors_set_alert",
        "Set an alert",
        says="Say so, once a day at most, when a behavior of yours fires in too many runs.",
        scope=SCOPE,
        body=shapes.RuleShape,
        answers=shapes.RuleShape,
        errors=(404,),
        asks={"percent": 5, "runs": 100},
    )
    def put(self, request: Request, id: UUID) -> Response:
        behavior = _own(self, id)
        asked = self.read(shapes.RuleShape)
        rule, _ = AlertRule.objects.update_or_create(behavior=behavior, defaults=asked)
        return Response(shapes.rule_to_json(rule))

    @operation("behaviors_remove_alert", "Remove an alert", scope=SCOPE, answers=None, status=204, errors=(404,))
    def delete(self, request: Request, id: UUID) -> Response:
        AlertRule.objects.filter(behavior=_own(self, id)).delete()
        return Response(status=204)


def _listed(endpoint: Endpoint, id: UUID) -> Behavior:
    return endpoint.one(library.listed(endpoint.request.user), id)


def _own(endpoint: Endpoint, id: UUID) -> Behavior:
    return endpoint.one(Behavior.objects.owned_by(endpoint.request.user).select_related("owner"), id)
