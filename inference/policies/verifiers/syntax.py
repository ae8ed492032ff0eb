"""JSON parses, where the policy asks for JSON; else what stands in a fence marked json or python does."""

from __future__ import annotations

import re
from collections.abc import Sequence

from inference.policies.documents import NotJson, read_json
from inference.policies.guiding import wants_json
from inference.policies.trace import Verdict
from inference.policies.verifiers.case import Case, each
from inference.policies.verifiers.code import compiles

PENALTY = 0.7
_FENCE = re.compile(r"```(json|python|py)[^\S\n]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)


async def verify(texts: Sequence[str], case: Case) -> list[Verdict]:
    return await each("syntax", PENALTY, _json if wants_json(case.policy.constraints) else _fences, texts)


def _json(text: str) -> str:
    try:
        read_json(text)
    except NotJson as error:
        return f"the answer is no valid JSON: {error}"
    return ""


def _fences(text: str) -> str:
    for fence in _FENCE.finditer(text):
        reason = _json(fence[2]) if fence[1].lower() == "json" else compiles(fence[2])
        if reason:
            return reason
    return ""
