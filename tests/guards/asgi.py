"""Requests through the whole ASGI application, in one process: what the servers call, without a port."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from asgiref.testing import ApplicationCommunicator

from webapp.asgi import application

HOST = "localhost"


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


async def ask(method: str, path: str, *, body: bytes = b"", **headers: str) -> Answer:
    """headers: `accept="…"`, `content_type="…"`; a host is sent unless one is given."""
    path, _, query = path.partition("?")
    sent = {"host": HOST, "content-length": str(len(body))} | {k.replace("_", "-"): v for k, v in headers.items()}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 40000),
        "server": (HOST, 8000),
    }
    line = ApplicationCommunicator(application, scope)
    await line.send_input({"type": "http.request", "body": body, "more_body": False})
    start = await line.receive_output(20)
    answer = Answer(start["status"], {k.decode().lower(): v.decode() for k, v in start["headers"]})
    more = True
    while more:
        part = await line.receive_output(20)
        answer.body += part.get("body", b"")
        more = part.get("more_body", False)
    await line.wait(5)
    return answer
