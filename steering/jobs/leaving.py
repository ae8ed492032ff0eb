"""When an account is deleted, its jobs end first."""

from __future__ import annotations

from typing import Any

from steering.accounts.deletion import account_leaves
from steering.accounts.models import User
from steering.jobs.models import Job
from steering.jobs.runner import job_cancel


def connect() -> None:
    account_leaves.connect(jobs_end, dispatch_uid="jobs_end")


def jobs_end(sender: type[User], user: User, **kwargs: Any) -> None:
    for job in Job.objects.active().filter(owner=user):
        job_cancel(job)
