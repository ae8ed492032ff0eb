"""Events on their way from the engine to web processes: one thread writes them to Redis, in order.

An event is kept until a minute after its attempt has ended, so that a web process that misses one can ask again. A
write that may or may not have happened is repeated; the reader drops what it has by number.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from inference.serving import link
from inference.types import TERMINAL, Event

log = logging.getLogger(__name__)

KEEP_SECONDS = 60.0
PER_ENTRY = 200  # events in one entry of a stream
UNKNOWN = "unknown"


@dataclass(eq=False)
class Parcel:
    """One event as JSON, where it goes, and the vectors that have to be there before it, by id."""

    address: str
    text: str
    vectors: dict[str, bytes] | None = None


@dataclass(eq=False)
class History:
    events: list[tuple[Event, dict[str, bytes] | None]] = field(default_factory=list)
    ended: float | None = None


class Outbox:
    """`send` and `resend` may be called from any thread and never block."""

    def __init__(self, url: str, worker_id: str):
        self._redis = link.open_sync(url)
        self._worker_id = worker_id
        self._queue: queue.SimpleQueue[tuple[str, Event | str, dict[str, bytes] | None] | None] = queue.SimpleQueue()
        self._history: dict[str, History] = {}
        self._lock = threading.Lock()  # guards the history
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def send(self, address: str, event: Event, vectors: dict[str, bytes] | None = None) -> None:
        with self._lock:
            history = self._history.setdefault(event.id, History())
            history.events.append((event, vectors))
            if isinstance(event, TERMINAL):
                history.ended = time.monotonic()
        self._queue.put((address, event, vectors))

    def resend(self, address: str, attempt: str, seq: int) -> None:
        """Send again what came after `seq` - 1, or say that the attempt is not known here."""
        with self._lock:
            history = self._history.get(attempt)
            events = list(history.events[seq:]) if history else []
        if history is None:
            self._queue.put((address, link.dumps({"type": UNKNOWN, "id": attempt}), None))
        for event, vectors in events:
            self._queue.put((address, event, vectors))

    def begin(self, attempt: str) -> None:
        """From now on the attempt is known, though it has no events yet."""
        with self._lock:
            self._history.setdefault(attempt, History())

    def close(self, seconds: float = 5.0) -> None:
        """Write what is left, for at most `seconds`."""
        self._deadline = time.monotonic() + seconds
        self._queue.put(None)
        self._thread.join(seconds + 5)

    def _run(self) -> None:
        swept = time.monotonic()
        ending = False
        while not ending:
            taken = [self._queue.get()]
            while len(taken) < 2000 and not self._queue.empty():
                taken.append(self._queue.get())
            ending = None in taken
            self._write([_parcel(*item) for item in taken if item])
            if time.monotonic() - swept > 5:
                swept = time.monotonic()
                self._forget()

    def _write(self, parcels: list[Parcel]) -> None:
        delay = 0.05
        while parcels:
            try:
                self._pipeline(parcels).execute()
                return
            except link.ERRORS as error:
                if self._deadline and time.monotonic() > self._deadline:
                    log.error("%d events could not be delivered: %s", len(parcels), error)
                    return
                if delay == 0.05:
                    log.warning("events wait for Redis: %s", error)
                time.sleep(delay)
                delay = min(1.0, delay * 2)

    def _pipeline(self, parcels: list[Parcel]) -> Any:
        pipe = self._redis.pipeline(transaction=False)
        by_address: dict[str, list[Parcel]] = {}
        for parcel in parcels:
            by_address.setdefault(parcel.address, []).append(parcel)
            for id, data in (parcel.vectors or {}).items():
                pipe.set(link.key("vector", id), data, ex=link.VECTOR_SECONDS)
        for address, own in by_address.items():
            stream = link.key("events", address)
            for start in range(0, len(own), PER_ENTRY):
                texts = ",".join(p.text for p in own[start : start + PER_ENTRY])
                fields = {"worker": self._worker_id, "events": f"[{texts}]"}
                pipe.xadd(stream, fields, maxlen=link.EVENTS_LENGTH, approximate=True)
            pipe.expire(stream, link.EVENTS_SECONDS)
        return pipe

    def _forget(self) -> None:
        with self._lock:
            old = time.monotonic() - KEEP_SECONDS
            for attempt in [k for k, h in self._history.items() if h.ended and h.ended < old]:
                del self._history[attempt]


def _parcel(address: str, event: Event | str, vectors: dict[str, bytes] | None) -> Parcel:
    return Parcel(address, event if isinstance(event, str) else link.dumps(event.to_wire()), vectors)
