"""Calls of the paths that Mechanex's clients use, where nothing else offers the thing."""

from __future__ import annotations

import json
import re
from typing import Any

from steerboard import _errors
from steerboard._core import Core
from steerboard._rest import interrupted
from steerboard._sending import open_stream, send
from steerboard._wire import Close, Event, Json, NextEvent, Plan, Reply, Request
from steerboard.errors import APIConnectionError, APIError

LATE = re.compile(r"error (\d{3}): (.+)", re.DOTALL)


def post(core: Core, path: str, body: Json) -> Plan[Any]:
    """Long work is answered with JSON after a while of spaces; what fails then says `error 503: sentence`."""
    request = Request("POST", path, json=body)
    reply = yield from send(core, request)
    if late := LATE.fullmatch(reply.text.strip()):
        raise _errors.of_reply(request, _failed(reply, int(late[1]), late[2]))
    return reply.json()


def _failed(reply: Reply, status: int, sentence: str) -> Reply:
    """The answer as it would have been, had the failure come before its status."""
    headers = {name: value for name, value in reply.headers.items() if name == "x-request-id"}
    return Reply(status, headers, json.dumps({"detail": sentence}).encode())


def result_of_events(core: Core, path: str, body: Json) -> Plan[dict[str, Any]]:
    """What the event `complete` of a stream says. Raises APIError where the stream tells of an error."""
    reply = yield from open_stream(core, Request("POST", path, json=body))
    if reply.content:
        raise APIError(f"{path} did not answer with a stream.", reply.status, reply.text)
    result: dict[str, Any] | None = None
    try:
        while result is None:
            event: Event | None = yield NextEvent()
            if event is None:
                raise interrupted("", "it ended before its result.")
            result = _complete(json.loads(event.data))
    except APIConnectionError as error:
        raise interrupted("", error.message) from error
    yield Close()
    return result


def _complete(said: Any) -> dict[str, Any] | None:
    if not isinstance(said, dict):
        return None
    if said.get("status") == "error":
        raise _errors.of_late(said)
    if said.get("status") != "complete":
        return None
    result = said.get("result")
    return result if isinstance(result, dict) else said
