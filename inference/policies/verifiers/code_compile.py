"""The first fenced block of the answer, else all of it, compiles as Python. It is not run."""

from __future__ import annotations

from collections.abc import Sequence

from inference.policies.trace import Verdict
from inference.policies.verifiers.case import Case, each
from inference.policies.verifiers.code import code_of, compiles

PENALTY = 0.8


async def verify(texts: Sequence[str], case: Case) -> list[Verdict]:
    return await each("code_compile", PENALTY, lambda text: compiles(code_of(text)), texts)
