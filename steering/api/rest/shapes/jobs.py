"""Jobs: long work, how far it is and how it ended."""

from __future__ import annotations

from typing import Any

from django.urls import Resolver404, resolve
from rest_framework import serializers

from inference.types import Forecast
from steering.api.rest.shapes.fields import Page, PageQuery
from steering.jobs.models import Job

STATES = [state.value for state in Job.State]


class JobQuery(PageQuery):
    state = serializers.ChoiceField(choices=STATES, required=False)
    kind = serializers.CharField(required=False, max_length=40, help_text="For example create_vector.")


class JobErrorShape(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()


class JobShape(serializers.Serializer):
    id = serializers.UUIDField()
    kind = serializers.CharField()
    title = serializers.CharField()
    state = serializers.ChoiceField(choices=STATES)
    done = serializers.IntegerField(help_text="Steps done, of `total`.")
    total = serializers.IntegerField()
    note = serializers.CharField(allow_blank=True, help_text="What is being done.")
    eta_seconds = serializers.FloatField(allow_null=True)
    seconds = serializers.FloatField(allow_null=True, help_text="How long it took; null before it ended.")
    error = JobErrorShape(allow_null=True)
    settings = serializers.DictField(child=serializers.JSONField(), help_text="What was asked for.")
    facts = serializers.DictField(
        child=serializers.JSONField(),
        help_text="What the work says of itself, such as a loss curve.",
    )
    result = serializers.DictField(
        child=serializers.JSONField(),
        allow_null=True,
        help_text="What a forecast found: verdict, sentence, the layers, pairs that disagree. Null of other kinds.",
    )
    dataset = serializers.UUIDField(allow_null=True, help_text="The dataset that was written, once it is there.")
    vector = serializers.UUIDField(allow_null=True, help_text="The vector that was built, once it is there.")
    behavior = serializers.UUIDField(allow_null=True, help_text="The behavior that was fitted, once it is there.")
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class JobPage(Page):
    data = JobShape(many=True)


def job_to_json(job: Job) -> dict[str, Any]:
    error = {"code": job.error_code, "message": job.error_message} if job.error_code else None
    return {
        "id": str(job.pk),
        "kind": job.kind,
        "title": job.title,
        "state": job.state,
        "done": job.done,
        "total": job.total,
        "note": job.note,
        "eta_seconds": job.eta_seconds,
        "facts": job.facts,
        "seconds": job.seconds,
        "error": error,
        "settings": {name: value for name, value in job.request.items() if name not in ("id", "kind")},
        "result": (job.result or None) if job.kind == Forecast.kind else None,
        "dataset": _made_by(job, "datasets:detail"),
        "vector": _made_by(job, "vectors:detail"),
        "behavior": _made_by(job, "behaviors:detail"),
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }


def _made_by(job: Job, page: str) -> str | None:
    """A job leads to what it made by the address of its page."""
    try:
        found = resolve(job.result_url)
    except Resolver404:
        return None
    return str(found.kwargs["pk"]) if found.view_name == page else None
