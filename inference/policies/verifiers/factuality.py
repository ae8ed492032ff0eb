"""The model itself is asked whether its answer is true, and its reply is read off log-probabilities.

What it is worth: as much as the model knows. The chance of "Yes" is taken against that for an answer without content,
since models say Yes to whatever they are shown (contextual calibration, 2102.09690), so 0.5 means that the answer looks
no truer than nothing at all. A model of a few hundred million parameters is hardly better than chance at this: use the
verdict to choose among candidates, not as a proof.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from inference.policies.trace import Verdict
from inference.policies.verifiers.case import TIME_UP, Case

PENALTY = 0.5
LEAST = 0.5


async def verify(texts: Sequence[str], case: Case) -> list[Verdict]:
    late = [Verdict("factuality", False, TIME_UP, PENALTY) for _ in texts]
    if case.late:
        return late
    try:
        async with asyncio.timeout(case.left()):
            chances = await case.asker.judge(case.question, texts)
    except TimeoutError:
        return late
    return [_verdict(chance) for chance in chances]


def _verdict(chance: float) -> Verdict:
    said = (
        f"the model itself holds it for {'true' if chance >= LEAST else 'untrue'}: {chance:.2f}, {LEAST} being needed"
    )
    return Verdict("factuality", chance >= LEAST, said, 0.0 if chance >= LEAST else PENALTY)
