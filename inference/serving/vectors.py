"""The vectors of a worker: read from Redis by content id, the latest kept in memory. No disk, so none to share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from inference.errors import NotFound
from inference.serving import link
from inference.store import load
from inference.types import SteeringVector

KEEP_BYTES = 256 * 2**20


class RedisVectors:
    """`inference.store.Vectors` of an engine that shares no disk with whoever asks."""

    def __init__(self, connection: Any, url: str, keep_bytes: int = KEEP_BYTES):
        self._redis, self._url, self._keep_bytes = connection, url, keep_bytes
        self._kept: OrderedDict[str, tuple[SteeringVector, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, data: bytes) -> SteeringVector:
        """Keep what the engine made, without waiting for Redis: the event that names it carries it there."""
        vector = load(data)
        self._keep(vector, data)
        return vector

    def get(self, id: str) -> SteeringVector:
        """The vector, checked. Raises NotFound, or Unavailable without Redis."""
        if kept := self._find(id):
            return kept[0]
        try:
            data = self._redis.get(link.key("vector", id))
        except link.ERRORS as error:
            raise link.unreachable(self._url, error) from error
        if data is None:
            raise NotFound("vector_not_found", f"There is no vector {id[:12]}. Build it again or upload its file.")
        assert isinstance(data, bytes)
        vector = load(data)
        if vector.id != id:
            raise NotFound(
                "vector_not_found", f"What lies under {id[:12]} is another vector. Upload the right one again."
            )
        self._keep(vector, data)
        return vector

    def data(self, id: str) -> bytes | None:
        """The bytes, where they are still in memory."""
        kept = self._find(id)
        return kept[1] if kept else None

    def _find(self, id: str) -> tuple[SteeringVector, bytes] | None:
        with self._lock:
            if id in self._kept:
                self._kept.move_to_end(id)
            return self._kept.get(id)

    def _keep(self, vector: SteeringVector, data: bytes) -> None:
        with self._lock:
            self._kept[vector.id] = (vector, data)
            while len(self._kept) > 1 and sum(len(d) for _, d in self._kept.values()) > self._keep_bytes:
                self._kept.popitem(last=False)
