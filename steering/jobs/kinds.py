"""What belongs to a kind of job by name, so that a process can carry a job that another one started."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inference.errors import InvalidRequest
from inference.types import JOB_REQUESTS, JobRequest
from steering.jobs.models import Job

OnResult = Callable[[Job, dict[str, Any]], None]

_keepers: dict[str, OnResult] = {}


def keeps_results_of(kind: str) -> Callable[[OnResult], OnResult]:
    """Name the function that keeps what jobs of a kind found; to be imported when Django starts.

    It runs in the transaction that marks the job succeeded, so what it saves exists exactly when the job succeeded; it
    may set `job.result_url`, and `job.used_tokens` for the ledger. Keep it short.
    """

    def register(keep: OnResult) -> OnResult:
        _keepers[kind] = keep
        return keep

    return register


def keeper_of(kind: str) -> OnResult | None:
    return _keepers.get(kind)


def request_of(job: Job) -> JobRequest:
    """The request of a job that was stored whole. Raises InvalidRequest when this version does not know it."""
    work = job.work or {}
    cls = JOB_REQUESTS.get(work.get("kind", ""))
    if cls is None:
        raise InvalidRequest(
            "unknown_job", "This job was started by another version of Steerboard. Start it again with this one."
        )
    request: JobRequest = cls.from_wire(work)
    return request
