"""/metrics: what this process counted, and how the engine, the jobs and the database are at this moment.

Staff may look, and whoever sends METRICS_TOKEN. An address is never enough: behind a proxy on the same machine
everybody comes from 127.0.0.1.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import Error as DatabaseTrouble
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inference.errors import InferenceError
from inference.types import ModelInfo, WorkerInfo
from steering import draining, gateway, metrics
from steering.jobs.models import Job
from steering.playground.models import Run
from webapp import errors

ANSWER_SECONDS = 3.0


@login_not_required
@never_cache
@require_safe
def show(request: HttpRequest) -> HttpResponse:
    """200 with the numbers, 401 without a token or account, 404 for an account that is not staff's."""
    if not has_token(request):
        if not request.user.is_authenticated:
            response = errors.signed_out(request)
            response["WWW-Authenticate"] = 'Bearer realm="metrics"'
            return response
        if not getattr(request.user, "is_staff", False):
            raise Http404
    now = CollectorRegistry()
    now.register(Now())
    return HttpResponse(generate_latest(metrics.registry) + generate_latest(now), content_type=CONTENT_TYPE_LATEST)


def has_token(request: HttpRequest) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    wanted = settings.METRICS_TOKEN
    return bool(wanted) and scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), wanted.encode())


class Now(Collector):
    """What is asked for at the moment of reading. What cannot be asked is left out, and `steerboard_up` says so."""

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("steerboard_up", "Whether a part of the installation answers", labels=["part"])
        yield _gauge("steerboard_draining", "Whether this process takes nothing new", draining.active())
        try:
            yield from _from_database()
            up.add_metric(["database"], 1)
        except DatabaseTrouble:
            up.add_metric(["database"], 0)
        try:
            workers = gateway.call(gateway.inference().workers(), ANSWER_SECONDS)
            yield from _of_workers(workers)
            up.add_metric(["inference"], 1 if any(worker.state == "ready" for worker in workers) else 0)
        except InferenceError:
            up.add_metric(["inference"], 0)
        yield up


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _from_database() -> Iterator[Metric]:
    """The same in every process, as the database is."""
    jobs = GaugeMetricFamily("steerboard_jobs", "Jobs by state", labels=["state"])
    counted = dict(Job.objects.order_by().values_list("state").annotate(n=Count("pk")))
    for state in Job.State:
        jobs.add_metric([state], counted.get(state, 0))
    running = GaugeMetricFamily(
        "steerboard_runs_running", "Runs of the playground that write", value=float(Run.objects.running().count())
    )
    yield from (jobs, running)


OF_WORKERS: dict[str, tuple[str, Callable[[WorkerInfo], float]]] = {
    "steerboard_worker_heartbeat_age_seconds": ("Since a worker was last heard of", lambda w: w.heartbeat_age),
    "steerboard_worker_memory_bytes": ("Memory of a worker", lambda w: w.memory_bytes),
}
OF_MODELS: dict[str, tuple[str, Callable[[ModelInfo], float]]] = {
    "steerboard_engine_rows": ("Rows in a worker's batch", lambda m: m.rows),
    "steerboard_engine_max_rows": ("Rows that a worker's batch can hold", lambda m: m.max_rows),
    "steerboard_engine_waiting": ("Requests that wait for a place in the batch", lambda m: m.waiting),
    "steerboard_engine_tokens_per_second": ("What a worker writes now", lambda m: m.tokens_per_second),
}


def _of_workers(workers: tuple[WorkerInfo, ...]) -> Iterator[Metric]:
    for name, (text, of_worker) in OF_WORKERS.items():
        family = GaugeMetricFamily(name, text, labels=["worker"])
        for worker in workers:
            family.add_metric([worker.id], of_worker(worker))
        yield family
    for name, (text, of_model) in OF_MODELS.items():
        family = GaugeMetricFamily(name, text, labels=["worker", "model"])
        for worker in workers:
            if worker.model:
                family.add_metric([worker.id, worker.model.id], of_model(worker.model))
        yield family
    states = GaugeMetricFamily("steerboard_workers", "Workers by state", labels=["state"])
    for state in sorted({worker.state for worker in workers}):
        states.add_metric([state], sum(worker.state == state for worker in workers))
    yield states
