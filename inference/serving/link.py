"""How web processes and workers find each other in Redis: names, times and connections. Loads no torch.

What lies where, each name behind `steerboard:`:
    workers                 the ids of the workers heard of lately
    worker:<id>             a WorkerInfo; its age is what is missing from its time to live, so no clocks are compared
    control:<worker>        stream of orders to one worker: cancel, finish, resend, command
    reader:<address>        says that a web process lives
    events:<address>        stream of events to one web process, from all workers
    claim:<attempt>         which worker took an attempt, or "fenced": nobody may any more
    cancel:<attempt>        the attempt is to end
    request:<request id>    the latest attempt of that request
    revision:<model id>     which revision of a model is served under its id; whoever loaded another one waits
    vector:<id>             a vector's file
Requests travel through Celery, in a queue for each model.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import redis
import redis.asyncio
from celery import Celery
from celery.app.amqp import AMQP
from kombu import Connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from inference.errors import InvalidRequest, Unavailable
from inference.types import Event, Result

BEAT_SECONDS = 1.0
LOST_SECONDS = 5.0  # without a heartbeat
STUCK_SECONDS = 10.0  # with work, but without a turn of the engine's loop
OUTAGE_SECONDS = 10.0  # without Redis
RECORD_SECONDS = 60  # a lost worker is listed this long
READER_SECONDS = 6  # without a sign of a web process; then as long again for it to come back
CLAIM_SECONDS = 2 * 3600  # longer than Celery keeps a message to deliver it again
EVENTS_SECONDS = 3600
EVENTS_LENGTH = 100_000
VECTOR_SECONDS = 24 * 3600
FENCED = "fenced"
TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")  # after a ?

TASK = "inference.serve"
IDLE_QUEUE = "inference.idle"  # Celery wants a queue where a worker has no model yet; nobody sends to it
WORKERS = "steerboard:workers"
ERRORS = (redis.RedisError, OSError, asyncio.TimeoutError)


def key(kind: str, name: str) -> str:
    return f"steerboard:{kind}:{name}"


def queue_of(model: str) -> str:
    """The Celery queue of a model's id; two ids never share one."""
    readable = re.sub(r"[^a-z0-9.-]+", "-", model.lower())[:60]
    return f"inference.{readable}.{hashlib.sha256(model.encode()).hexdigest()[:8]}"


def check_url(url: str) -> str:
    """Raises InvalidRequest("bad_url"): no address, an option that is not known, or a file that is not there."""
    parts = urlsplit(url)
    try:
        sound = parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0
        int(parts.path.strip("/") or 0)
    except ValueError:
        sound = False
    if not sound:
        raise _bad_url(
            "is not a Redis address. Use redis://:password@host:6379/0, with %40 for @ and the like in the password."
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(options.keys() - set(TLS_OPTIONS)):
        raise _bad_url(f"has options that are not known: {', '.join(unknown)}. Known are {', '.join(TLS_OPTIONS)}.")
    if options and parts.scheme != "rediss":
        raise _bad_url("has options for TLS, which begins with rediss://. Write it so, or leave them out.")
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if name in options and not Path(options[name]).is_file():
            raise _bad_url(f"says {name}={options[name]}, and there is no such file here. Name one that is.")
    return url


def _bad_url(problem: str) -> InvalidRequest:
    return InvalidRequest("bad_url", f"INFERENCE_URL {problem}")


def place(url: str) -> str:
    """The host and port of a Redis address, without a password, for people."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or 6379}"


def unreachable(url: str, error: BaseException | None = None) -> Unavailable:
    """What to say of a Redis that cannot be used, where `error` is what its client said."""
    if isinstance(error, redis.AuthenticationError) or "NOAUTH" in str(error):
        problem = "does not take the password in INFERENCE_URL. Correct it there"
    elif "certificate" in str(error).lower():
        problem = (
            "has a certificate that is not trusted here, or was made for another host. Name the file of the authority "
            "that signed it: INFERENCE_URL=rediss://…?ssl_ca_certs=/path/ca.pem"
        )
    else:
        problem = "does not answer. Start it, or check INFERENCE_URL"
    return Unavailable("redis_unreachable", f"Redis at {place(url)} {problem}.", retry_after=5.0)


def open_sync(url: str, timeout: float = 3.0) -> Any:
    """A connection that fails at once; whoever uses it tries again in its own way."""
    return redis.Redis.from_url(
        url, socket_connect_timeout=1.0, socket_timeout=timeout, retry=Retry(NoBackoff(), 0), decode_responses=False
    )


def open_async(url: str, timeout: float = 1.5) -> Any:
    pool: Any = redis.asyncio.BlockingConnectionPool.from_url(
        url,
        max_connections=16,
        timeout=5,
        socket_connect_timeout=1.0,
        socket_timeout=timeout,
        retry=AsyncRetry(NoBackoff(), 0),
    )
    return redis.asyncio.Redis(connection_pool=pool)


class SteadyConnection(Connection):
    """Looks for a Redis that went away every second; Celery's own patience grows to half a minute."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        steady = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 1.0}
        return super().ensure_connection(*args, **steady | options)


class SteadyAMQP(AMQP):
    Connection = SteadyConnection


def make_celery(url: str) -> Celery:
    """The Celery application of both ends: JSON alone, no results, and patience with a Redis that restarts."""
    app = Celery("inference", broker=url, amqp=SteadyAMQP, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_default_queue=IDLE_QUEUE,
        task_acks_late=False,
        task_send_sent_event=False,
        worker_pool="threads",
        worker_concurrency=4,
        worker_prefetch_multiplier=0,  # a task only hands its request to the engine, which has the waiting list
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Without it kombu takes any certificate. What the address says of TLS comes in place of this.
        broker_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED} if url.startswith("rediss://") else None,
        broker_transport_options={
            "socket_connect_timeout": 1.0,
            "socket_timeout": 5.0,
            "socket_keepalive": True,
            "visibility_timeout": CLAIM_SECONDS // 2,
        },
    )
    return app


def dumps(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"))


def vectors_in(event: Event) -> list[str]:
    """The ids of vectors that a job's result names: whoever gets it has to have them."""
    if not isinstance(event, Result):
        return []
    named = [event.payload.get("vector"), *event.payload.get("vectors", ())]
    return [vector["id"] for vector in named if isinstance(vector, dict) and vector.get("id")]
