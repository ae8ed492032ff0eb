"""What a behavior's detector reads in a text that somebody gives: a job, and its result for a page."""

from __future__ import annotations

from typing import Any

from inference.types import Message, ReadProbes
from steering.access.estimate import tokens_in
from steering.access.principal import Principal
from steering.behaviors.models import Behavior
from steering.jobs.models import Job, JobQuerySet
from steering.jobs.runner import job_start
from steering.refusals import need, storable

KIND = ReadProbes.kind
MAX_TEXT = 40_000


def reading_start(
    *,
    owner: Any,
    behavior: Behavior,
    text: str,
    prompt: str = "",
    who: Principal | None = None,
    source: str = "behaviors",
) -> Job:
    """Read `text` as it is or, given a `prompt`, as the answer to it. Raises InvalidRequest and Denied."""
    need(text.strip() != "", "empty_text", "There is nothing to read yet. Paste a text first.")
    for what, said in (("The text", text), ("The message before it", prompt)):
        storable(said, what)
        need(len(said) <= MAX_TEXT, "too_long", f"{what} has {len(said):,} characters; {MAX_TEXT:,} is the most.")
    talk = (Message("user", prompt), Message("assistant", text))
    request = ReadProbes(
        id="",
        probes=(behavior.read.probe,),
        texts=() if prompt else (text,),
        conversations=(talk,) if prompt else (),
    )
    return job_start(
        owner=owner,
        kind=KIND,
        title=f"Read a text with {behavior}",
        request=request,
        about={"behavior": str(behavior.pk), "name": str(behavior)},
        who=who,
        source=source,
        tokens=tokens_in((prompt + text,)),
    )


def readings_of(user: Any, behavior: Behavior) -> JobQuerySet:
    """The readings with this behavior that a person has started."""
    return Job.objects.owned_by(user).filter(kind=KIND, request__behavior=str(behavior.pk))


def reading_of(job: Job, behavior: Behavior) -> dict[str, Any] | None:
    """{"tokens": [[text, score or null]], "fired": n}, once the job has succeeded. Special tokens have no score."""
    texts = job.result.get("texts") if job.state == Job.State.SUCCEEDED else None
    if not texts:
        return None
    (read,) = texts
    skipped = set(read.get("left_out") or ())
    scores = read["scores"][0]
    tokens = [[text, None if i in skipped else scores[i]] for i, (_, text) in enumerate(read["tokens"])]
    fired = sum(score is not None and score > behavior.threshold for _, score in tokens)
    return {"tokens": tokens, "fired": fired, "threshold": behavior.threshold}
