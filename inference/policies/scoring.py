"""From what was written to a candidate: checks, verdicts, a score from 0 to 1, and which one is best.

The score is 1 less the penalties: 1 for constraints that do not hold, and each verifier's own (syntax, json_schema and
tool_args 0.7, regex 0.4, code_compile 0.8, unit_tests 0.9, factuality 0.5), never below 0. A candidate is accepted
where all constraints hold and all verifiers pass, whatever its score.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from inference.errors import InvalidRequest
from inference.policies import verifiers, voting
from inference.policies.guiding import checks
from inference.policies.trace import Candidate, Verdict
from inference.policies.verifiers.case import Case

CONSTRAINTS = "constraints"
CONSTRAINTS_PENALTY = 1.0


async def scored(candidates: Sequence[Candidate], case: Case, enforced: tuple[str, ...]) -> list[Candidate]:
    """The candidates with what was found about each. Verifiers look one after another, at all of them."""
    begun = time.monotonic()
    texts = [c.output for c in candidates]
    verdicts: list[list[Verdict]] = [[] for _ in texts]
    for name in dict.fromkeys(case.policy.verifiers.enabled):
        for mine, verdict in zip(verdicts, await _looked(name, texts, case), strict=True):
            mine.append(verdict)
    looked = [await asyncio.to_thread(checks, case.policy.constraints, text, enforced) for text in texts]
    ms = round(1000 * (time.monotonic() - begun))
    return [
        judged(replace(c, checks=found, verdicts=tuple(said), verify_ms=ms))
        for c, found, said in zip(candidates, looked, verdicts, strict=True)
    ]


async def _looked(name: str, texts: Sequence[str], case: Case) -> list[Verdict]:
    """What cannot look, such as a judge for whom the answer is too long, lets nothing pass, and ends no run."""
    try:
        return await verifiers.ALL[name](texts, case)
    except InvalidRequest as refusal:
        return [Verdict(name, False, f"it could not look: {refusal.message}") for _ in texts]


def judged(c: Candidate) -> Candidate:
    """A candidate with the score and the acceptance that follow from its checks and verdicts."""
    constraints_ok = all(check.passed for check in c.checks)
    verifier_ok = all(verdict.passed for verdict in c.verdicts)
    penalties = {v.name: v.penalty for v in c.verdicts if v.penalty}
    if not constraints_ok:
        penalties[CONSTRAINTS] = CONSTRAINTS_PENALTY
    failures = [f"constraint {x.name}: {x.reason}" for x in c.checks if not x.passed]
    failures += [f"verifier {x.name}: {x.reason}" for x in c.verdicts if not x.passed]
    return replace(
        c,
        constraints_ok=constraints_ok,
        verifier_ok=verifier_ok,
        accepted=constraints_ok and verifier_ok,
        penalties=penalties,
        score=round(max(0.0, 1.0 - sum(penalties.values())), 6),
        reason=failures[0] if failures else "accepted",
    )


def counted(candidates: Sequence[Candidate]) -> list[Candidate]:
    """With the votes of each."""
    found = voting.votes([c.output for c in candidates])
    return [replace(c, votes=n) for c, n in zip(candidates, found, strict=True)]


def best_of(candidates: Sequence[Candidate], rerank: bool) -> Candidate:
    """Accepted before not, then by score, votes, whether it was cut off, and likelihood; the first among equals."""

    def order(c: Candidate) -> tuple[bool, float, int, bool, float]:
        likely = c.mean_logprob if rerank and c.mean_logprob is not None and not c.votes else 0.0
        return c.accepted, 1 - sum(c.penalties.values()), c.votes, not c.cut, likely

    return max(candidates, key=order)  # the first of equals
