"""The whole answer matches the policy's pattern."""

from __future__ import annotations

from collections.abc import Sequence

from inference.policies.patterns import mismatch
from inference.policies.trace import Verdict
from inference.policies.verifiers.case import Case, each

PENALTY = 0.4


async def verify(texts: Sequence[str], case: Case) -> list[Verdict]:
    pattern = case.policy.constraints.regex_pattern or ""

    def look(text: str) -> str:
        wrong = mismatch("regex", pattern, text)
        return f"the whole answer must match {pattern[:200]!r}; {wrong}" if wrong else ""

    return await each("regex", PENALTY, look, texts)
