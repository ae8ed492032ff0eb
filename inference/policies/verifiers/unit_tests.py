"""The answer's code passes the policy's tests, in a sandbox: `inference.policies.sandbox` says what it is kept from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from inference.errors import InvalidRequest
from inference.policies import sandbox
from inference.policies.trace import Verdict
from inference.policies.verifiers.case import TIME_UP, Case
from inference.policies.verifiers.code import code_of, compiles

PENALTY = 0.9
LONGEST_REASON = 500


def check_allowed(allowed: bool) -> None:
    """Raises InvalidRequest where answers may not be run here, or cannot be run safely."""
    if not allowed:
        raise InvalidRequest(
            "unit_tests_not_allowed",
            "The verifier unit_tests runs what the model wrote, and that is not allowed here. An administrator can "
            "allow it; code_compile checks code without running it.",
        )
    if missing := sandbox.available():
        raise InvalidRequest("unit_tests_unavailable", f"The verifier unit_tests cannot be used: {missing}")


async def verify(texts: Sequence[str], case: Case) -> list[Verdict]:
    """One after another: they are timed, and beside each other they would take each other's time."""
    return [await _verdict(text, case) for text in texts]


async def _verdict(text: str, case: Case) -> Verdict:
    code, wanted = code_of(text), case.policy.verifiers
    if broken := compiles(code):
        return Verdict("unit_tests", False, broken, PENALTY)
    if case.late:
        return Verdict("unit_tests", False, TIME_UP, PENALTY)
    left, seconds = case.left(), wanted.unit_test_timeout_ms / 1000
    limits = sandbox.Limits(seconds=seconds if left is None else min(seconds, left))
    ran = await asyncio.to_thread(sandbox.run_python, code, tests=wanted.code_unit_tests, limits=limits)
    if ran.passed:
        return Verdict("unit_tests", True, seconds=round(ran.seconds, 4))
    reason = TIME_UP if case.late else f"a unit test failed: {ran.reason}"[:LONGEST_REASON]
    return Verdict("unit_tests", False, reason, PENALTY, round(ran.seconds, 4))
