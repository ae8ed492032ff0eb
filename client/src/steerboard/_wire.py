"""What a call says to the world, without doing it.

A call is written once, as a generator: it yields what it wants done (a request, a pause, the next event of a stream)
and is sent what came of it. `_calls` runs the same generator over a blocking and over an asynchronous transport.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar

from steerboard.errors import APIError

T = TypeVar("T")
Json: TypeAlias = Any
Auth = Literal["key", "account", "none"]


@dataclass(frozen=True)
class Request:
    """One exchange. `path` is under the server's address.

    auth: "key" sends the API key, else the token; "account" the token, else the key; "none" neither.
    once: the server does it once however often it comes, known by an Idempotency-Key.
    harmless: sending it twice does no more than sending it once, whatever became of the first.
    """

    method: str
    path: str
    json: Json = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, tuple[str, bytes, str]] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    auth: Auth = "key"
    once: bool = False
    timeout: float | None = None
    server: str | None = None  # the client's own, which is filled in; another one only without credentials

    @property
    def harmless(self) -> bool:
        return self.once or self.method in ("GET", "HEAD", "DELETE", "PUT")

    def with_headers(self, headers: Mapping[str, str]) -> Request:
        return replace(self, headers={**self.headers, **headers})


@dataclass(frozen=True)
class Reply:
    """An answer, read to its end. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", errors="replace")

    def json(self) -> Json:
        """Raises APIError where it is no JSON."""
        try:
            return json.loads(self.content)
        except ValueError as error:
            raise APIError(
                f"The server's answer is not JSON: {self.text[:120]!r}.",
                self.status,
                self.text,
                request_id=self.headers.get("x-request-id"),
                cure="Check that the address is Steerboard's, without a path of a page.",
            ) from error


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    data: str
    event: str = "message"
    id: str | None = None


# ---- what a call may yield, and what it is sent for it ----


@dataclass(frozen=True)
class Exchange:
    """→ Reply. Raises APIConnectionError."""

    request: Request


@dataclass(frozen=True)
class Open:
    """→ Reply, whose content is empty where it is a stream that `NextEvent` reads on. One stream at a time."""

    request: Request


@dataclass(frozen=True)
class NextEvent:
    """→ Event, or None at the end. Raises APIConnectionError."""


@dataclass(frozen=True)
class Close:
    """→ None. Closes the open stream, if there is one."""


@dataclass(frozen=True)
class Pause:
    """→ None, after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Invoke:
    """→ what `work` gives. For what blocks and is no request, such as a model in this process."""

    work: Callable[[], Any]


@dataclass(frozen=True)
class Emit:
    """→ None. A piece of what the caller iterates over; only of streams."""

    item: Any


Effect: TypeAlias = Exchange | Open | NextEvent | Close | Pause | Invoke | Emit
Plan: TypeAlias = Generator[Effect, Any, T]
Flow: TypeAlias = Generator[Effect, Any, None]  # of a stream: what it emits is its result
