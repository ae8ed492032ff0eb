"""Which attempts this worker holds. One belongs to the first who writes its claim; a web process may fence it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from inference.serving import link


@dataclass(eq=False)
class Held:
    address: str
    unheard_since: float | None = None  # the web process that reads it has not been seen since


class Leases:
    def __init__(self, connection: Any, worker_id: str):
        self._redis = connection
        self._worker_id = worker_id
        self._held: dict[str, Held] = {}
        self._lock = threading.Lock()

    def claim(self, attempt: str, address: str) -> bool:
        """True once for each attempt, if nobody else has it and it was not fenced. Raises redis.RedisError."""
        won = self._redis.set(link.key("claim", attempt), self._worker_id, nx=True, ex=link.CLAIM_SECONDS)
        if won:
            with self._lock:
                self._held[attempt] = Held(address)
        return bool(won)

    def is_cancelled(self, attempt: str) -> bool:
        return bool(self._redis.exists(link.key("cancel", attempt)))

    def release(self, attempt: str) -> None:
        with self._lock:
            self._held.pop(attempt, None)

    def all(self) -> list[str]:
        with self._lock:
            return list(self._held)

    def renew(self) -> list[str]:
        """Keep every claim alive; which attempts are to end: cancelled, fenced, or with nobody left who reads them.

        Raises redis.RedisError.
        """
        with self._lock:
            held = dict(self._held)
        if not held:
            return []
        addresses = sorted({h.address for h in held.values()})
        pipe = self._redis.pipeline(transaction=False)
        for attempt in held:
            pipe.set(link.key("claim", attempt), self._worker_id, nx=True, ex=link.CLAIM_SECONDS)  # Redis may be new
        pipe.mget([link.key("claim", attempt) for attempt in held])
        pipe.mget([link.key("cancel", attempt) for attempt in held])
        pipe.mget([link.key("reader", address) for address in addresses])
        *_, claims, cancels, readers = pipe.execute()
        present = {a for a, reader in zip(addresses, readers, strict=True) if reader}
        return [
            attempt
            for (attempt, lease), claim, cancel in zip(held.items(), claims, cancels, strict=True)
            if cancel or claim != self._worker_id.encode() or self._is_unread(lease, lease.address in present)
        ]

    def _is_unread(self, lease: Held, present: bool) -> bool:
        now = time.monotonic()
        lease.unheard_since = None if present else lease.unheard_since or now
        return lease.unheard_since is not None and now - lease.unheard_since > link.READER_SECONDS
