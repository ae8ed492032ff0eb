"""Runs a trace again, to the same texts."""

from __future__ import annotations

from inference.errors import InvalidRequest
from inference.policies.asking import Asker
from inference.policies.runner import Run
from inference.policies.schema import Policy
from inference.policies.trace import VERSION, Outcome, Trace


async def replay(trace: Trace, asker: Asker, *, allow_unit_tests: bool = False) -> Outcome:
    """The same rounds with the same seeds. What a clock ended then is ended after as many tokens now.

    Rows that shared the batch with others in float32 can differ where two tokens were tied; `differences` says which.
    Raises InvalidRequest("trace_version"), ("model_changed") and ("steering_changed") where the texts could not be the
    same, and what the policy itself is refused for.
    """
    if trace.version != VERSION:
        raise InvalidRequest(
            "trace_version", f"The trace has version {trace.version}; {VERSION} is read. Run the policy anew."
        )
    prompt = trace.prompt if trace.prompt is not None else trace.messages
    if prompt is None:
        raise InvalidRequest("empty_prompt", "The trace has no prompt. Run the policy anew.")
    policy = Policy.parse(trace.policy)
    run = Run(policy, prompt, asker, trace.max_new_tokens, trace.seed, allow_unit_tests, recorded=trace)
    return await run.whole()


def differences(before: Trace, after: Trace) -> tuple[str, ...]:
    """Where two traces have other texts, a sentence each; nothing where all are the same."""
    old = {(c.round, c.slot): c.output for c in before.candidates}
    new = {(c.round, c.slot): c.output for c in after.candidates}
    said = [
        f"Candidate {slot + 1} of round {round_ + 1} "
        + (
            "is missing in one of them."
            if (round_, slot) not in old or (round_, slot) not in new
            else "has another text."
        )
        for round_, slot in sorted(old.keys() | new.keys())
        if old.get((round_, slot)) != new.get((round_, slot))
    ]
    ends = [t.selection.output if t.selection else None for t in (before, after)]
    return (*said, *(["Another answer was chosen."] if ends[0] != ends[1] else []))
