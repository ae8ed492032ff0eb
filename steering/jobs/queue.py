"""The queue on which web processes leave jobs for web workers. A message is a job's id and nothing else.

Celery's threads ignore time limits and its redelivery takes minutes, so neither is used: a message is acknowledged
before the work begins, the row says who carries a job, and the sweeper looks after what lost its message or carrier.
"""

from __future__ import annotations

import json
import ssl
from functools import lru_cache
from typing import Any
from uuid import UUID

from celery import Celery
from celery.app.amqp import AMQP
from django.conf import settings
from kombu import Connection
from kombu.exceptions import OperationalError

from steering import gateway, shared

QUEUE = "steerboard.jobs"
TASK = "steerboard.jobs.carry"
TROUBLE = OperationalError  # what `send` raises while Redis cannot be reached
JOBS_AT_ONCE = 16  # they wait for the model most of the time


class SteadyConnection(Connection):
    """Looks for a Redis that went away every second; Celery's own patience grows to half a minute."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        steady = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 1.0}
        return super().ensure_connection(*args, **steady | options)


class SteadyAMQP(AMQP):
    Connection = SteadyConnection


@lru_cache(maxsize=1)
def app() -> Celery:
    queue = Celery("steerboard", broker=settings.REDIS_URL, amqp=SteadyAMQP, set_as_current=False)
    queue.conf.update(
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        worker_pool="threads",
        worker_concurrency=JOBS_AT_ONCE,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Without it kombu takes any certificate. What the address says of TLS comes in place of this.
        broker_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED} if settings.REDIS_URL.startswith("rediss://") else None,
        broker_transport_options={
            "socket_timeout": shared.ANSWER_SECONDS,
            "socket_connect_timeout": shared.CONNECT_SECONDS,
        },
    )
    queue.task(name=TASK)(carry)
    return queue


def send(job_id: UUID) -> None:
    """Leave a message for the web workers, under the job's id. Raises TROUBLE."""
    app().send_task(TASK, args=[str(job_id)], task_id=str(job_id), queue=QUEUE, retry=False)


async def waiting() -> set[str]:
    """The ids of jobs whose message lies on the queue and was taken by nobody. Raises `shared.trouble()`.

    What a worker has fetched and not begun is not among them: it is lost when that worker is killed.
    """
    messages = await shared.redis().lrange(QUEUE, 0, -1)
    return {json.loads(message)["headers"]["id"] for message in messages}


def carry(job_id: str) -> None:
    """Carry a job to its end, in a web worker. Harmless when it is carried already or has ended."""
    from steering.jobs.runner import job_carry

    gateway.spawn(job_carry(UUID(job_id))).result()
