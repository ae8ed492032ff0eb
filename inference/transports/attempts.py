"""One request on its way through Redis, and what its reader knows of it. Only the hub's loop touches it."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field

from inference.logs import cause
from inference.types import Event, GenerationRequest, JobRequest


def fresh_key() -> str:
    return secrets.token_hex(12)


@dataclass(eq=False)
class Attempt:
    """`key` names the present try: a caller's id may come again, and a try that was fenced must not be heard.

    Times are seconds of the monotonic clock. `seq` is the number of the event that is expected next.
    """

    request: GenerationRequest | JobRequest
    loop: asyncio.AbstractEventLoop
    inbox: asyncio.Queue[Event]
    key: str = field(default_factory=fresh_key)
    model: str = ""
    seq: int = 0
    worker: str = ""  # who took it, once that is known
    cause: str = field(default_factory=cause.get)  # whose log lines on the worker's side name it
    tries: int = 0
    opened: float = field(default_factory=time.monotonic)
    sent: float = 0.0
    heard: float = 0.0
    asked: float = 0.0  # for events that are missing
    missing_since: float | None = None
    homeless_since: float | None = None  # its worker was lost, and no other was found yet
    unknown: bool = False  # its worker says that it never began
    cancelled: bool = False
    ended: bool = False

    @property
    def begun(self) -> bool:
        return self.seq > 0

    @property
    def kind(self) -> str:
        return "generate" if isinstance(self.request, GenerationRequest) else self.request.kind

    @property
    def vector_ids(self) -> list[str]:
        return sorted({id for i in getattr(self.request, "interventions", ()) for id in i.vector_ids})
