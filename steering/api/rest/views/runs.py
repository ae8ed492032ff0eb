from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from django.http.response import HttpResponseBase
from django.urls import reverse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from inference.types import ModelInfo
from steering import gateway
from steering.api.idempotency import Answer
from steering.api.rest.base import Endpoint, created
from steering.api.rest.errors import invalid
from steering.api.rest.following import run_events
from steering.api.rest.named import model_named
from steering.api.rest.openapi import SERVER_SENT_EVENT, operation
from steering.api.rest.pages import newest_first, page_of
from steering.api.rest.shapes import runs as shapes
from steering.api.rest.shapes.fields import Strict
from steering.api.rest.streams import ended, stream
from steering.api.rest.views.jobs import SEEN
from steering.playground import runner
from steering.playground.library import run_delete, run_rename
from steering.playground.messages import RunMessage
from steering.playground.models import Run
from steering.playground.planning import plan_lanes
from steering.playground.schema import parse_settings

SCOPE = "generate"
ASKS = {
    "input": "My train is late again. What should I do?",
    "lanes": [
        {"name": "Base"},
        {
            "name": "Calm",
            "interventions": [{"vector": "7d1c0c64-4a4e-4b6c-8f0e-0e4a3a2f9b10", "layer": 9, "strength": 0.3}],
        },
    ],
    "sampling": {"max_tokens": 64, "seed": 7},
}


class Runs(Endpoint):
    scope = SCOPE

    @operation(
        "runs_list",
        "List runs",
        says="Newest first. What their lanes wrote comes with each run.",
        scope=SCOPE,
        query=shapes.RunQuery,
        answers=shapes.RunPage,
    )
    def get(self, request: Request) -> Response:
        query = self.query(shapes.RunQuery)
        rows = Run.objects.owned_by(request.user).matching(query.get("q", ""))
        if "state" in query:
            rows = rows.filter(state=query["state"])
        page, cursor = newest_first(rows, query)
        return Response(page_of([shapes.run_to_json(row) for row in page], cursor))

    @operation(
        "runs_create",
        "Start a run",
        says="As the playground does: up to six lanes answer one input at the same time. The answer comes at once; the "
        "run goes on by itself, and its events can be followed.",
        scope=SCOPE,
        body=shapes.RunCreate,
        answers=shapes.RunDetail,
        status=201,
        once=True,
        errors=(404,),
        asks=ASKS,
    )
    def post(self, request: Request) -> Response:
        asked = self.read(shapes.RunCreate)
        model = model_named(asked.get("model", ""))
        message = _message(asked, model, str(self.same_for_resent() or uuid4()))
        _refuse_what_cannot_run(request.user, message, model)

        def start() -> Answer:
            run = gateway.call(runner.run_start(request.user, message, who=self.who, source="rest"))
            return created(shapes.run_detail(run), reverse("rest:run", args=[run.pk]))

        return self.once(start, atomic=False)  # the runner starts a run once for its idem


def _message(asked: dict[str, Any], model: ModelInfo, idem: str) -> RunMessage:
    return RunMessage(
        idem=idem,
        settings=shapes.run_settings(asked, model.id if asked.get("model") else ""),
        parent=str(asked["parent"]) if asked.get("parent") else None,
        version_of=str(asked["version_of"]) if asked.get("version_of") else None,
        lanes=tuple(asked["only"]) if "only" in asked else None,
    )


def _refuse_what_cannot_run(user: Any, message: RunMessage, model: ModelInfo) -> None:
    """A page shows in each lane why it cannot run; a program is told before anything runs. Raises InferenceError."""
    settings = parse_settings(message.settings)
    keys = message.lanes or tuple(lane.key for lane in settings.lanes)
    for lane in plan_lanes(user=user, settings=settings, keys=keys, parent=None, model=model, prefix="check"):
        if lane.error:
            raise lane.error


class OneRun(Endpoint):
    scope = SCOPE

    @operation(
        "runs_get",
        "Get a run",
        says="With what its lanes wrote: while it runs, up to a second ago.",
        scope=SCOPE,
        answers=shapes.RunDetail,
        errors=(404,),
    )
    def get(self, request: Request, id: UUID) -> Response:
        return Response(shapes.run_detail(_own(self, id)))

    @operation(
        "runs_change",
        "Rename a run",
        scope=SCOPE,
        body=shapes.RunChange,
        answers=shapes.RunDetail,
        errors=(404,),
        asks={"title": "Late train, calm at 0.3"},
    )
    def patch(self, request: Request, id: UUID) -> Response:
        run = _own(self, id)
        return Response(shapes.run_detail(run_rename(run, self.read(shapes.RunChange)["title"])))

    @operation(
        "runs_delete",
        "Delete a run",
        says="One that still writes is stopped first.",
        scope=SCOPE,
        answers=None,
        status=204,
        errors=(404,),
    )
    def delete(self, request: Request, id: UUID) -> Response:
        run_delete(request.user, _own(self, id))
        return Response(status=204)


class Stops(Endpoint):
    scope = SCOPE

    @operation(
        "runs_stop",
        "Stop a run",
        says="One lane, or all of them; what is written stays. Harmless when it has ended.",
        scope=SCOPE,
        body=shapes.RunStop,
        answers=shapes.RunDetail,
        errors=(404,),
        asks={},
    )
    def post(self, request: Request, id: UUID) -> Response:
        run = _own(self, id)
        gateway.call(runner.run_stop(request.user, run.pk, self.read(shapes.RunStop).get("lane")))
        run.refresh_from_db()
        return Response(shapes.run_detail(run))


class RunEventsQuery(Strict):
    after = serializers.IntegerField(
        required=False, min_value=-1, max_value=10**9, help_text="As Last-Event-ID, for clients without headers."
    )


class RunEvents(Endpoint):
    scope = SCOPE

    @operation(
        "runs_events",
        "Follow a run",
        says="Server-sent events, each with its number as id: `started`, `token` and `finished` or `failed` for each "
        "lane, then `run_finished`. All from the beginning, or those after Last-Event-ID. `reset` says that the server "
        "lost its last second: everything follows once more. `error` says that the stream cannot go on. 204: the run "
        "has ended and the client has heard so.",
        scope=SCOPE,
        query=RunEventsQuery,
        answers=None,
        also={(200, "text/event-stream"): SERVER_SENT_EVENT, 204: None},
        errors=(404,),
        more=(SEEN,),
    )
    def get(self, request: Request, id: UUID) -> HttpResponseBase:
        after = self._after(request)
        run = _own(self, id)
        if run.ended_seq is not None and after == run.ended_seq:
            return ended()
        return stream(self.who, run_events(request.user, run.pk, after))

    def _after(self, request: Request) -> int:
        after = self.query(RunEventsQuery).get("after", -1)
        text = request.headers.get("Last-Event-ID", "").strip()
        if not text:
            return int(after)
        if not (text.isascii() and text.isdecimal() and len(text) < 10):
            said = "This is not the id of an event of ours: those are numbers from 0. Leave it out to hear everything."
            raise invalid({"Last-Event-ID": said})
        return int(text)


def _own(endpoint: Endpoint, id: UUID) -> Run:
    return endpoint.one(Run.objects.owned_by(endpoint.request.user), id)
