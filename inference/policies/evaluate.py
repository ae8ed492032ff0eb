"""A policy over many prompts, and several policies over one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from inference.policies.asking import Asker
from inference.policies.schema import Policy
from inference.types import Message

Prompt = str | tuple[Message, ...]
Report = Callable[[int, int, str], None]  # done, of how many, what


async def evaluate(
    policy: Policy,
    prompts: Sequence[Prompt],
    asker: Asker,
    *,
    max_new_tokens: int = 128,
    seed: int = 0,
    at_once: int = 1,
    include_trace: bool = False,
    allow_unit_tests: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """{"num_prompts", "success_rate", "avg_score", "avg_latency_ms", "avg_tokens", "pass_count", "fail_count",
    "spent_tokens", "prompt_tokens", "outputs": [Outcome as JSON]}. `at_once` prompts share batches; latencies grow."""
    raise NotImplementedError


async def compare(
    policies: Sequence[Policy],
    prompt: Prompt,
    askers: Sequence[Asker] | Asker,
    *,
    max_new_tokens: int = 128,
    seed: int = 0,
    include_trace: bool = True,
    allow_unit_tests: bool = False,
    report: Report | None = None,
) -> dict[str, Any]:
    """{"results": [Outcome as JSON, or {"error": {...}} for a policy that was refused]}, one after another."""
    raise NotImplementedError
