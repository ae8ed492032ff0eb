"""What the processes of one installation share where there are several: Redis, and a name for each process.

With REDIS_URL unset there is one process, `enabled()` is false, and nothing here opens a connection. The client belongs
to the gateway's loop: await its commands there.
"""

from __future__ import annotations

import os
import secrets
import socket
from functools import lru_cache
from typing import Any

from django.conf import settings

from inference.errors import Unavailable

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
LEASE_SECONDS = 10  # a carrier that was not heard of for so long is gone; it speaks every second

PROCESS = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(4)}"


def enabled() -> bool:
    """Whether other processes may serve the same people."""
    return bool(settings.REDIS_URL)


@lru_cache(maxsize=1)
def redis() -> Any:
    """The client, whose commands raise one of `trouble()` while Redis cannot be reached."""
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return Redis.from_url(
        settings.REDIS_URL,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),  # who calls knows what to do, and when
    )


@lru_cache(maxsize=1)
def trouble() -> tuple[type[Exception], ...]:
    """What a command may raise when Redis is down, restarting or silent."""
    from redis.exceptions import RedisError

    return (RedisError, OSError, TimeoutError)


def unreachable() -> Unavailable:
    return Unavailable(
        "redis_unavailable",
        "Redis, which joins the processes of this installation, cannot be reached. Nothing is lost; try again in a "
        "moment, and tell whoever runs this server if it stays so.",
        retry_after=3,
    )


async def ping() -> None:
    """Raises Unavailable where Redis does not answer."""
    try:
        await redis().ping()
    except trouble():
        raise unreachable() from None
