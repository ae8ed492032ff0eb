"""Sending a request: who asks, what is tried again, and which error an answer is. Written once for both transports.

A request is sent again only where that cannot do a thing twice: it never left; it is harmless (a read, or a creation
under an Idempotency-Key); or the server refused it before it began, which 429, and 503 with Retry-After, say.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from steerboard import _errors
from steerboard._core import Core
from steerboard._transport import NotConnected
from steerboard._version import __version__
from steerboard._wire import Effect, Exchange, Json, Open, Pause, Plan, Reply, Request
from steerboard.errors import APIConnectionError, AuthenticationError, SteerboardError

MOST_SECONDS = 60.0  # of one wait; what the server wants waited for longer is told to the caller
FIRST_SECONDS, FACTOR = 0.5, 2.0
BEGUN = {"worker_lost", "engine_fault"}  # codes of a 503 whose work had begun
AGENT = f"steerboard-python/{__version__}"


def ask(core: Core, request: Request) -> Plan[Json]:
    """The JSON of a success, or None where it has no body. Raises SteerboardError."""
    reply = yield from send(core, request)
    return reply.json() if reply.content.strip() else None


def send(core: Core, request: Request) -> Plan[Reply]:
    return (yield from _sent(core, request, Exchange))


def open_stream(core: Core, request: Request) -> Plan[Reply]:
    """After it, NextEvent yields the stream's events, unless the reply has content."""
    accepted = request.with_headers({"Accept": "text/event-stream"})
    return (yield from _sent(core, accepted, Open))


def _sent(core: Core, request: Request, how: type[Exchange] | type[Open]) -> Plan[Reply]:
    if request.once and "Idempotency-Key" not in request.headers:
        request = request.with_headers({"Idempotency-Key": str(uuid.uuid4())})
    refreshed, tries = False, 0
    while True:
        addressed = address(core, request)
        effect: Effect = how(addressed)
        try:
            reply: Reply = yield effect
        except APIConnectionError as lost:
            if tries >= core.max_retries or not (request.harmless or isinstance(lost, NotConnected)):
                raise
            yield Pause(backoff(tries))
            tries += 1
            continue
        if 200 <= reply.status < 300:
            return reply
        if reply.status == 401 and not refreshed:
            refreshed = True
            if (yield from _renewed(core, addressed)):
                continue
        wait = _wait(request, reply, tries)
        if wait is None or tries >= core.max_retries:
            raise _errors.of_reply(request, reply)
        yield Pause(wait)
        tries += 1


def _wait(request: Request, reply: Reply, tries: int) -> float | None:
    """Seconds after which to send it again, or None where that is in vain or could do it twice."""
    should, after = reply.headers.get("x-should-retry"), _errors.retry_after(reply.headers)
    if should == "false" or (after is not None and after > MOST_SECONDS):
        return None
    refused = reply.status == 429 or (reply.status == 503 and after is not None and _errors.code_of(reply) not in BEGUN)
    passing = reply.status in (408, 500, 502, 503, 504) or (reply.status == 409 and after is not None)
    if reply.status == 429 and after is None and should != "true":
        return None  # no waiting helps
    if should == "true" or refused or (request.harmless and passing):
        return backoff(tries) if after is None else after
    return None


def backoff(tries: int) -> float:
    return FIRST_SECONDS * FACTOR**tries * random.uniform(0.75, 1.25)  # noqa: S311


def address(core: Core, request: Request) -> Request:
    """With its server, and what lets one in at that server. Raises AuthenticationError where there is nothing."""
    server, held = core.where_and_who()
    said = {"Accept": "application/json", "User-Agent": AGENT} | dict(request.headers)
    if request.auth == "none":
        return replace(request, server=request.server or server, headers=said)
    assert request.server is None, "credentials go to the client's own server"
    order = (held.api_key, held.access_token) if request.auth == "key" else (held.access_token, held.api_key)
    secret = next((each for each in order if each), None)
    if secret is None:
        raise AuthenticationError(
            f"There are no credentials for {server}.",
            cure="Set a key with set_key(...) or STEERBOARD_API_KEY, or run: steerboard login.",
        )
    return replace(request, server=server, headers=said | {"Authorization": bearer(secret)})


def bearer(secret: str) -> str:
    return f"Bearer {secret}"


def _renewed(core: Core, refused: Request) -> Plan[bool]:
    """Whether there is another token by now than the one that was refused. A key is not renewed."""
    server, held = core.where_and_who()
    said = refused.headers.get("Authorization")
    if said is None or server != refused.server or said == bearer(held.api_key or ""):
        return False
    if held.access_token and said != bearer(held.access_token):
        return True  # another thread has renewed it
    if not held.refresh_token:
        return False
    asked = Request("POST", "/auth/refresh", json={"refresh_token": held.refresh_token}, auth="none", server=server)
    reply: Reply = yield Exchange(address(core, asked))
    if reply.status != 200:
        return False
    return hold_session(core, reply.json(), persist=_is_kept(core, held.refresh_token))


def hold_session(core: Core, body: Any, *, persist: bool, email: str | None = None) -> bool:
    """Take the tokens out of an answer of /auth/*; whether there were any."""
    session = body.get("session") if isinstance(body, Mapping) else None
    if not isinstance(session, Mapping) or not session.get("access_token"):
        return False
    changes = {"access_token": str(session["access_token"])}
    if session.get("refresh_token"):
        changes["refresh_token"] = str(session["refresh_token"])
    forgotten: dict[str, str | None] = {}
    if email and core.credentials.email != email:
        forgotten = {"api_key": None, "model": None, "email": email}  # they may be another person's
    core.hold(persist=persist, **changes, **forgotten)
    return True


def _is_kept(core: Core, token: str | None) -> bool:
    try:
        return core.file.load(core.base_url).refresh_token == token
    except SteerboardError:
        return False
