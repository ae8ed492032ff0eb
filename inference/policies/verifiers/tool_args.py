"""The answer calls a tool that there is, with the arguments that it takes."""

from __future__ import annotations

from collections.abc import Sequence

from inference.policies.documents import NotJson, read_json, violation
from inference.policies.schema import nearest
from inference.policies.toolcalls import ANY_CALL, call_schema, tools_of
from inference.policies.trace import Verdict
from inference.policies.verifiers.case import Case, each

PENALTY = 0.7


async def verify(texts: Sequence[str], case: Case) -> list[Verdict]:
    schema = case.policy.constraints.tool_schema
    tools = None if schema is None else tools_of(schema)

    def look(text: str) -> str:
        try:
            call = read_json(text)
        except NotJson as error:
            return f"the answer is no valid JSON: {error}"
        if wrong := violation(call, ANY_CALL):
            return f'the answer must be {{"tool_name": ..., "arguments": {{...}}}}: {wrong}'
        name = call["tool_name"]
        if tools is None:
            wrong = violation(call, call_schema(schema))
        elif name not in tools:
            return f"there is no tool {name[:60]!r}. {nearest(name, tools)}There are {', '.join(tools)}"
        else:
            wrong = violation(call["arguments"], tools[name])
        return f"the arguments of {name[:60]!r} do not fit: {wrong}" if wrong else ""

    return await each("tool_args", PENALTY, look, texts)
