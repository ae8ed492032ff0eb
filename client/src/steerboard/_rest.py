"""What calls of the REST API share: pages, jobs that are waited for, and streams that go on after a break."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerboard import _errors
from steerboard._core import Core
from steerboard._sending import ask, backoff, open_stream
from steerboard._wire import Auth, Close, Emit, Event, Flow, Json, NextEvent, Pause, Plan, Request
from steerboard.errors import APIConnectionError, APIError, JobFailed, StreamInterrupted

API = "/api/v1"
PAGE = 100
ACTIVE = ("queued", "running")
LOOK_SECONDS = (0.1, 2.0)  # between two looks at what runs: the first, and the longest


def get(core: Core, path: str, *, auth: Auth = "key", **params: Any) -> Plan[Json]:
    return (yield from ask(core, Request("GET", API + path, params=params, auth=auth)))


def create(core: Core, path: str, body: Json, *, auth: Auth = "key") -> Plan[Json]:
    """Done once, however often it has to be sent."""
    return (yield from ask(core, Request("POST", API + path, json=body, once=True, auth=auth)))


def act(core: Core, path: str, body: Json = None) -> Plan[Json]:
    return (yield from ask(core, Request("POST", API + path, json={} if body is None else body)))


def change(core: Core, path: str, body: Json) -> Plan[Json]:
    return (yield from ask(core, Request("PATCH", API + path, json=body)))


def delete(core: Core, path: str, *, auth: Auth = "key") -> Plan[None]:
    yield from ask(core, Request("DELETE", API + path, auth=auth))


def every(core: Core, path: str, *, auth: Auth = "key", **params: Any) -> Plan[list[dict[str, Any]]]:
    """All rows of a list, page after page."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = yield from get(core, path, auth=auth, limit=PAGE, cursor=cursor, **params)
        rows += page["data"]
        cursor = page.get("next_cursor")
        if not cursor:
            return rows


# ---- jobs ----


def job_events(core: Core, job: str) -> Flow:
    """Emits the job as it is after every change, the last one ended. Goes on after a break where it was."""
    seen, failures = "", 0
    while True:
        headers = {"Last-Event-ID": seen} if seen else {}
        reply = yield from open_stream(core, Request("GET", f"{API}/jobs/{job}/events/", headers=headers))
        if reply.status == 204 or reply.content:
            return
        try:
            while (event := (yield NextEvent())) is not None:
                if event.event == "error":
                    raise _errors.of_event(json.loads(event.data))
                seen, failures = event.id or seen, 0
                yield Emit(json.loads(event.data))
                if event.event == "ended":
                    yield Close()
                    return
        except APIConnectionError:
            if failures >= core.max_retries:
                raise
        failures += 1
        if failures > core.max_retries:
            raise APIConnectionError(f"The events of job {job} break off again and again.")
        yield Pause(backoff(failures))


def finished(core: Core, job: Mapping[str, Any]) -> Plan[dict[str, Any]]:
    """The job when it has succeeded. Raises JobFailed."""
    last = dict(job)
    flow = job_events(core, str(job["id"]))
    answer: Any = None
    failure: Exception | None = None
    while True:  # like `yield from`, with what it emits kept here
        try:
            effect = flow.throw(failure) if failure else flow.send(answer)
        except StopIteration:
            break
        answer, failure = None, None
        if isinstance(effect, Emit):
            last = effect.item
            continue
        try:
            answer = yield effect
        except Exception as error:
            failure = error
    if last["state"] in ACTIVE:
        last = yield from get(core, f"/jobs/{job['id']}/")
    return succeeded(last)


def succeeded(thing: dict[str, Any]) -> dict[str, Any]:
    """A job, a run, an attribution or a question that has ended well. Raises JobFailed with what it says of itself."""
    if thing["state"] == "succeeded":
        return thing
    error = thing.get("error") or {}
    said = error.get("message") if isinstance(error, Mapping) else str(error)
    title = thing.get("title") or thing.get("name") or thing.get("question") or "The job"
    raise JobFailed(
        said or f"{title} ended as {thing['state']}.",
        details=thing,
        code=error.get("code") if isinstance(error, Mapping) else None,
    )


def looked_at(core: Core, path: str) -> Plan[dict[str, Any]]:
    """What is at an address when it is active no more; asked for again and again, ever slower."""
    pause, longest = LOOK_SECONDS
    while True:
        thing: dict[str, Any] = yield from get(core, path)
        if thing["state"] not in ACTIVE:
            return thing
        yield Pause(pause)
        pause = min(longest, pause * 1.5)


# ---- streams that cannot be begun again ----


def events_once(core: Core, request: Request) -> Plan[None]:
    """Open a stream of a POST. What is no stream is an error."""
    reply = yield from open_stream(core, request)
    if reply.content or reply.status != 200:
        raise APIError(
            f"{request.path} did not answer with a stream.",
            reply.status,
            reply.text,
            request_id=reply.headers.get("x-request-id"),
        )


def next_or_broken(so_far: str) -> Plan[Event | None]:
    """The next event. Raises StreamInterrupted with what had come, for nothing is asked for a second time."""
    try:
        event: Event | None = yield NextEvent()
    except APIConnectionError as error:
        raise interrupted(so_far, error.message) from error
    return event


def interrupted(so_far: str, why: str) -> StreamInterrupted:
    return StreamInterrupted(
        f"The stream broke off: {why}",
        so_far=so_far,
        cure="It is not asked for again by itself: what had come is in `so_far`.",
    )


# ---- files ----


def upload(core: Core, path: str, file: Any, content: bytes, form: Mapping[str, str | None]) -> Plan[Json]:
    files = {"file": (Path(file).name, content, "application/octet-stream")}
    given = {name: value for name, value in form.items() if value is not None}
    return (yield from ask(core, Request("POST", API + path, files=files, form=given, once=True)))
