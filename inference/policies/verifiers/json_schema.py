"""The answer is JSON and validates against the policy's schema; without a schema, it is JSON."""

from __future__ import annotations

from collections.abc import Sequence

from inference.policies.documents import NotJson, read_json, violation
from inference.policies.trace import Verdict
from inference.policies.verifiers.case import Case, each

PENALTY = 0.7


async def verify(texts: Sequence[str], case: Case) -> list[Verdict]:
    schema = case.policy.constraints.json_schema

    def look(text: str) -> str:
        try:
            value = read_json(text)
        except NotJson as error:
            return f"the answer is no valid JSON: {error}"
        wrong = "" if schema is None else violation(value, schema)
        return f"the answer does not fit the schema: {wrong}" if wrong else ""

    return await each("json_schema", PENALTY, look, texts)
