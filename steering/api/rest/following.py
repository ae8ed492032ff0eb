"""What happens to runs and jobs, as streams of events."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

from rest_framework.utils.encoders import JSONEncoder

from inference.errors import NotFound
from steering.api.rest.shapes.jobs import job_to_json
from steering.api.rest.streams import message
from steering.jobs.models import Job
from steering.playground.runlog import Event
from steering.playground.runner import run_follow

LOOK_SECONDS = 0.5  # a job's row changes at most four times a second


async def run_events(user: Any, run_id: UUID, after: int) -> AsyncIterator[bytes]:
    """Every event above number `after`, then those that follow, up to the end of the run."""
    async with aclosing(run_follow(user, run_id, after)) as frames:  # type: ignore[type-var]
        async for events in frames:
            if events is None:
                yield message("reset", {"type": "reset"})
            else:
                yield b"".join(message(event["t"], event_to_json(event), event["seq"]) for event in events)


def event_to_json(event: Event) -> dict[str, Any]:
    """An event of a run, in the words of the API."""
    same = {"type": event["t"], "seq": event["seq"]} | ({"lane": event["lane"]} if "lane" in event else {})
    match event["t"]:
        case "started":
            facts = {"prompt_tokens": event["prompt_tokens"], "seed": event["seed"]}
            return same | facts | {"watches": event.get("watches", [])}
        case "token":
            top = [{"token": token, "logprob": logprob} for token, logprob in event["top"]]
            return same | {"token_id": event["id"], "text": event["s"], "logprob": event["lp"], "top_logprobs": top}
        case "scored":
            return same | {"start": event["start"], "values": event["values"]}
        case "fired":
            return same | {"firings": event["firings"]}
        case "finished":
            facts = {name: event.get(name) for name in ("state", "usage", "receipt", "seconds")}
            return same | facts | {"finish_reason": event.get("reason"), "text": event.get("s") or ""}
        case "failed":
            return same | {"state": event["state"], "error": event["error"]}
    return same | {"state": event["state"], "saved": event["saved"]}


async def job_events(user: Any, job_id: UUID, seen: str) -> AsyncIterator[bytes]:
    """The job as it is now, unless `seen` names that, and after every change, up to its end."""
    while True:
        job = await Job.objects.owned_by(user).filter(pk=job_id).afirst()
        if job is None:
            raise NotFound("job_not_found", "This job was deleted.")
        if mark_of(job) != seen:
            seen = mark_of(job)
            yield message("progress" if job.is_active else "ended", job_to_json(job), seen)
        if not job.is_active:
            return
        await asyncio.sleep(LOOK_SECONDS)


def mark_of(job: Job) -> str:
    """Names the state in which a job is, so that a client that comes back hears only what is new."""
    text = json.dumps(job_to_json(job), sort_keys=True, cls=JSONEncoder)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
