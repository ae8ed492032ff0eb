"""What looks at finished candidates. A verifier takes the texts of a round and gives a verdict on each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from inference.policies.trace import Verdict
from inference.policies.verifiers import (
    code_compile,
    factuality,
    json_schema,
    regex,
    syntax,
    tool_args,
    unit_tests,
)
from inference.policies.verifiers.case import Case

Verify = Callable[[Sequence[str], Case], Awaitable[list[Verdict]]]

ALL: dict[str, Verify] = {
    "syntax": syntax.verify,
    "json_schema": json_schema.verify,
    "regex": regex.verify,
    "code_compile": code_compile.verify,
    "unit_tests": unit_tests.verify,
    "tool_args": tool_args.verify,
    "factuality": factuality.verify,
}
