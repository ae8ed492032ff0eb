from __future__ import annotations

from uuid import UUID

from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response

from steering.api.rest.base import Endpoint
from steering.api.rest.following import job_events, mark_of
from steering.api.rest.openapi import SERVER_SENT_EVENT, operation
from steering.api.rest.pages import newest_first, page_of
from steering.api.rest.shapes import jobs as shapes
from steering.api.rest.shapes.fields import Strict
from steering.api.rest.streams import ended, stream
from steering.jobs.models import Job
from steering.jobs.runner import job_cancel, job_finish

SCOPE = "jobs"
SEEN = OpenApiParameter(
    "Last-Event-ID",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="The id of the last event that was heard: only what is new follows. Browsers send it by themselves.",
)


class Jobs(Endpoint):
    scope = SCOPE

    @operation(
        "jobs_list",
        "List jobs",
        says="Newest first.",
        scope=SCOPE,
        query=shapes.JobQuery,
        answers=shapes.JobPage,
    )
    def get(self, request: Request) -> Response:
        query = self.query(shapes.JobQuery)
        rows = Job.objects.owned_by(request.user)
        rows = rows.filter(**{name: query[name] for name in ("state", "kind") if name in query})
        page, cursor = newest_first(rows, query)
        return Response(page_of([shapes.job_to_json(row) for row in page], cursor))


class OneJob(Endpoint):
    scope = SCOPE

    @operation("jobs_get", "Get a job", scope=SCOPE, answers=shapes.JobShape, errors=(404,))
    def get(self, request: Request, id: UUID) -> Response:
        return Response(shapes.job_to_json(self.one(Job.objects.owned_by(request.user), id)))


class Cancellations(Endpoint):
    scope = SCOPE

    @operation(
        "jobs_cancel",
        "Cancel a job",
        says="Harmless when it has ended: the answer is the job as it is.",
        scope=SCOPE,
        answers=shapes.JobShape,
        errors=(404,),
    )
    def post(self, request: Request, id: UUID) -> Response:
        job = self.one(Job.objects.owned_by(request.user), id)
        job_cancel(job)
        job.refresh_from_db()
        return Response(shapes.job_to_json(job))


class Finishes(Endpoint):
    scope = SCOPE

    @operation(
        "jobs_finish",
        "Stop a job and keep the best so far",
        says="An optimisation ends with the best vector it has; other kinds of job go on. Harmless when it has ended.",
        scope=SCOPE,
        answers=shapes.JobShape,
        errors=(404,),
    )
    def post(self, request: Request, id: UUID) -> Response:
        job = self.one(Job.objects.owned_by(request.user), id)
        job_finish(job)
        return Response(shapes.job_to_json(job))


class JobEvents(Endpoint):
    scope = SCOPE

    @operation(
        "jobs_events",
        "Follow a job",
        says="Server-sent events: `progress` with the job as it is, after every change, then `ended`. `error` says "
        "that the stream cannot go on. 204: the job has ended and the client has heard so.",
        scope=SCOPE,
        answers=None,
        also={(200, "text/event-stream"): SERVER_SENT_EVENT, 204: None},
        errors=(404,),
        more=(SEEN,),
    )
    def get(self, request: Request, id: UUID) -> HttpResponseBase:
        self.query(Strict)
        job = self.one(Job.objects.owned_by(request.user), id)
        seen = request.headers.get("Last-Event-ID", "")[:40]
        if not job.is_active and mark_of(job) == seen:
            return ended()
        return stream(self.who, job_events(request.user, job.pk, seen))
