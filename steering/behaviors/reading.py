"""What a behavior's detector reads in a text that somebody gives: a job, and its result for a page."""

from __future__ import annotations

from itertools import accumulate
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
        about={"behavior": str(behavior.pk), "name": str(behavior), "answer": text if prompt else ""},
        who=who,
        source=source,
        tokens=tokens_in((prompt + text,)),
    )


def readings_of(user: Any, behavior: Behavior) -> JobQuerySet:
    """The readings with this behavior that a person has started."""
    return Job.objects.owned_by(user).filter(kind=KIND, request__behavior=str(behavior.pk))


def reading_of(job: Job, behavior: Behavior) -> dict[str, Any] | None:
    """{"tokens": [[text, score or null]], "fired": n}, once the job has succeeded. Special tokens have no score.

    Of an answer to a message only the answer's own tokens: not the message, nor what the chat template says.
    """
    texts = job.result.get("texts") if job.state == Job.State.SUCCEEDED else None
    if not texts:
        return None
    (read,) = texts
    skipped = set(read.get("left_out") or ())
    scores = read["scores"][0]
    inside = _answer_tokens([text for _, text in read["tokens"]], job.request.get("answer") or "")
    tokens = [[read["tokens"][i][1], None if i in skipped else scores[i]] for i in inside]
    fired = sum(score is not None and score > behavior.threshold for _, score in tokens)
    return {"tokens": tokens, "fired": fired, "threshold": behavior.threshold}


def _answer_tokens(texts: list[str], answer: str) -> range:
    """The places of the tokens that hold the answer, which stands last; all, where it cannot be found."""
    start = "".join(texts).rfind(answer.strip()) if answer.strip() else 0
    stop = start + len(answer.strip()) if start > 0 else len("".join(texts))
    ends = list(accumulate(len(text) for text in texts))
    inside = [i for i, end in enumerate(ends) if end > start and end - len(texts[i]) < stop]
    return range(inside[0], inside[-1] + 1) if start > 0 and inside else range(len(texts))
