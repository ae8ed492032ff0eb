"""The web worker: `celery -A webapp worker -Q steerboard.jobs -P threads` carries the jobs that web processes start."""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")

import django

django.setup()

from celery import signals
from django.conf import settings
from django.core.checks import run_checks

from steering import gateway
from steering.jobs import queue
from webapp import sweeper

app = queue.app()


@signals.setup_logging.connect
def keep_our_log(**kwargs: Any) -> None:
    """Django has set the log up; where nobody listens here, Celery would set up its own."""


@signals.worker_init.connect
def refuse_what_cannot_work(sender: Any, **kwargs: Any) -> None:
    if not settings.REDIS_URL:
        sys.exit("A web worker takes its jobs from Redis. Set REDIS_URL, or use `make run`, which needs no worker.")
    if "thread" not in getattr(sender.pool_cls, "__module__", ""):
        sys.exit("A web worker needs threads: nothing else keeps its event loop alive. Start it with -P threads.")
    if problems := [check for check in run_checks() if check.is_serious()]:
        sys.exit("\n".join(str(check) for check in problems))


@signals.worker_ready.connect
def begin(**kwargs: Any) -> None:
    gateway.warm_up()
    sweeper.start()
