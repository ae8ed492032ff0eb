"""What a run is charged: all its lanes are reserved when it starts, and settled to what they read and wrote.

A lane that failed costs nothing, and neither does one carried over from an earlier version of the run.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from inference.types import GenerationRequest, ModelInfo
from steering.access import admission
from steering.access.estimate import tokens_in
from steering.access.principal import Principal
from steering.playground.models import LaneOutput, Run
from steering.playground.planning import PlannedLane


def work_of(run_id: UUID) -> str:
    return f"run:{run_id}"


def reserve_run(who: Principal, run: Run, planned: list[PlannedLane], model: ModelInfo, source: str) -> None:
    """Raises Denied(429). In the transaction that saves the run."""
    requests = [lane.request for lane in planned if lane.request]
    admission.reserve(
        who,
        work=work_of(run.pk),
        kind="generate",
        model=model.id or run.settings.get("model", ""),
        tokens=sum(_at_most(request, model) for request in requests),
        source=source,
        parts=",".join(lane.key for lane in planned),
    )


def settle_run(run_id: UUID, outputs: Iterable[LaneOutput]) -> None:
    """Harmless when the run is settled already. In the transaction that ends the run."""
    entry = admission.open_of(work_of(run_id))
    if entry is None:
        return
    ran = set(entry.parts.split(","))
    counted = [row for row in outputs if row.key in ran and row.state != LaneOutput.State.FAILED and row.started]
    if not counted:
        return admission.refund(entry.pk)
    prompt, written = zip(*(_used(row) for row in counted), strict=True)
    admission.settle(entry.pk, prompt_tokens=sum(prompt), completion_tokens=sum(written))


def _used(row: LaneOutput) -> tuple[int, int]:
    usage = row.usage
    if usage:
        return usage["prompt_tokens"], usage["completion_tokens"]
    return (row.started or {}).get("prompt_tokens", 0), len(row.tokens)


def _at_most(request: GenerationRequest, model: ModelInfo) -> int:
    texts = [message.content for message in request.messages or ()] or [request.prompt or ""]
    guess = tokens_in(texts) + request.sampling.max_tokens
    return min(guess, model.context_length) if model.context_length else guess
