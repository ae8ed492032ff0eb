"""One line and one count for each request and each websocket, written when its last byte has left.

Outermost around the application, so that it sees what clients see: how long a stream took, and who went away early. A
line names a route, never an address: addresses can hold one-time tokens and search words.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from inference.logs import cause
from steering import metrics
from steering.playground.consumers import DIRECT
from steering.playground.routing import websocket_urlpatterns
from webapp.logs import ACCESS

logger = logging.getLogger(ACCESS)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

KEY = "steerboard.visit"  # in the scope
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
OFTEN = {"livez", "readyz", "status", "static", "metrics"}  # asked for every few seconds
UNKNOWN = "unknown"


@dataclass(eq=False)
class Visit:
    """What is known of one request or websocket by now. Times are in seconds."""

    kind: str  # http or websocket
    method: str
    route: str = UNKNOWN
    user: int | None = None
    key: str = ""  # the prefix of the API key it came with
    status: int = 0
    close: int | None = None  # a websocket's code
    left: bool = False  # the client went away before the end
    bytes: int = 0
    id: str = field(default_factory=lambda: f"req_{secrets.token_hex(6)}")
    began: float = field(default_factory=time.monotonic)

    def facts(self) -> dict[str, Any]:
        """For the log. Absent is what does not apply."""
        facts: dict[str, Any] = {
            "kind": self.kind,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "ms": round((time.monotonic() - self.began) * 1000, 1),
            "bytes": self.bytes,
            "user": self.user,
            "key": self.key or None,
            "close": self.close,
            "left": self.left or None,
        }
        return {name: value for name, value in facts.items() if value is not None}


class Access:
    """An ASGI application around another."""

    def __init__(self, app: App):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        visit = _visit_of(scope)
        scope[KEY] = visit
        token = cause.set(visit.id)
        watch = _Watch(visit, receive, send)
        scope[DIRECT] = watch.send
        with metrics.open_connections.labels(visit.kind).track_inprogress():
            try:
                await self.app(scope, watch.receive, watch.send)
            finally:
                visit.status = visit.status or 500
                visit.left = visit.left and not watch.complete
                _tell(visit)
                cause.reset(token)


class _Watch:
    """Listens to what passes between client and application."""

    def __init__(self, visit: Visit, receive: Receive, send: Send):
        self.visit, self._receive, self._send = visit, receive, send
        self.complete = False

    async def receive(self) -> dict[str, Any]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.visit.left = True
        elif message["type"] == "websocket.disconnect":
            self.visit.close = message.get("code", 1006)
        return message

    async def send(self, message: dict[str, Any]) -> None:
        visit, kind = self.visit, message["type"]
        if kind == "websocket.send":
            visit.bytes += len(message.get("bytes") or message.get("text") or b"")
            await self._send(message)
            return
        if kind == "websocket.accept":
            visit.status = 101
        elif kind == "websocket.close":
            visit.status, visit.close = visit.status or 403, message.get("code", 1000)
        elif kind.endswith("response.start"):
            visit.status = message["status"]
        visit.bytes += len(message.get("body") or b"")
        await self._send(message)
        self.complete = self.complete or (kind == "http.response.body" and not message.get("more_body"))


def _visit_of(scope: Scope) -> Visit:
    if scope["type"] == "websocket":
        return Visit("websocket", "GET", _socket_route(scope["path"]))
    method = scope["method"] if scope["method"] in METHODS else "OTHER"
    return Visit("http", method, "static" if scope["path"].startswith(settings.STATIC_URL) else UNKNOWN)


def _socket_route(path: str) -> str:
    known = (entry.pattern for entry in websocket_urlpatterns if entry.pattern.match(path.removeprefix("/")))
    return next((f"/{pattern}" for pattern in known), UNKNOWN)


def _tell(visit: Visit) -> None:
    facts = visit.facts()
    metrics.requests.labels(visit.route, visit.method, str(visit.status)).inc()
    if visit.kind == "http":
        metrics.request_seconds.labels(visit.route).observe(facts["ms"] / 1000)
    level = logging.DEBUG if visit.route in OFTEN and visit.status < 400 else logging.INFO
    sentence = f"{visit.method} {visit.route} {visit.status} {facts['ms']:.0f} ms"
    whom = f" user={visit.user}" if visit.user else ""
    logger.log(level, "%s%s%s", sentence, whom, f" key={visit.key}" if visit.key else "", extra={"facts": facts})


# ---- what Django knows ----


def visit_of(request: HttpRequest) -> Visit | None:
    """The visit that a request is, where it came through ASGI."""
    return getattr(request, "scope", {}).get(KEY)


def learn(request: HttpRequest) -> None:
    """Note the route and who asked. Asks no database: who was not looked up stays unknown."""
    visit = visit_of(request)
    if visit is None:
        return
    if match := request.resolver_match:
        visit.route = match.view_name or str(match.route)
    user = getattr(request, "_cached_user", None) or getattr(request, "_acached_user", None)
    principal = getattr(request, "principal", None)
    if principal is not None:
        user, visit.key = principal.user, principal.key.prefix if principal.key else ""
    visit.user = getattr(user, "pk", None)


class SocketUser:
    """Inside the authentication of websockets: notes whose one this is."""

    def __init__(self, app: App):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if visit := scope.get(KEY):
            visit.user = getattr(scope.get("user"), "pk", None)
        await self.app(scope, receive, send)
