"""Whether this process lives, and whether it may be sent work: for balancers and containers, which have no account."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.decorators import login_not_required
from django.db import Error as DatabaseTrouble
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from inference.errors import InferenceError
from steering import draining, gateway, shared

ANSWER_SECONDS = 3.0
FRESH_SECONDS = 15.0


@login_not_required
@require_safe
def livez(request: HttpRequest) -> JsonResponse:
    """200 while the process answers at all; asks nobody else."""
    return JsonResponse({"alive": True}, headers={"Cache-Control": "no-store"})


@login_not_required
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when a run would be taken now, else 503; each check is "ok" or a reason."""
    checks = {name: check() for name, check in CHECKS.items()}
    ready = set(checks.values()) == {"ok"}
    headers = {"Cache-Control": "no-store"}
    return JsonResponse({"ready": ready, "checks": checks}, status=200 if ready else 503, headers=headers)


def _accepting() -> str:
    return "draining: this process finishes what it carries and stops" if draining.active() else "ok"


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseTrouble:
        return "the database does not answer"
    return "ok"


def _redis() -> str:
    if not shared.enabled():
        return "ok"
    try:
        gateway.call(shared.ping(), ANSWER_SECONDS)
    except InferenceError as error:
        return error.message
    return "ok"


def _worker() -> str:
    try:
        workers = gateway.call(gateway.inference().workers(), ANSWER_SECONDS)
    except InferenceError as error:
        return error.message
    if any(w.state == "ready" and w.heartbeat_age < FRESH_SECONDS for w in workers):
        return "ok"
    states = ", ".join(sorted({worker.state for worker in workers}))
    return f"no worker is ready ({states or 'there is none'})"


CHECKS: dict[str, Callable[[], str]] = {
    "accepting": _accepting,
    "database": _database,
    "redis": _redis,
    "worker": _worker,
}
