"""A policy over many prompts, and several policies over one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from inference.errors import InferenceError, InvalidRequest
from inference.policies.asking import Asker
from inference.policies.runner import run_policy
from inference.policies.schema import Policy
from inference.policies.settings import derived_seed
from inference.policies.trace import Outcome
from inference.types import Message

Prompt = str | tuple[Message, ...]
Report = Callable[[int, int, str], None]  # done, of how many, what
MOST_PROMPTS = 1000
MOST_POLICIES = 8
MOST_AT_ONCE = 8


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
    "spent_tokens", "prompt_tokens", "outputs": [Outcome as JSON]}. An answer that is accepted is a success.

    `at_once` prompts share batches; each then takes longer. Prompt i has its own seed, the same for every policy.
    """
    if not 1 <= len(prompts) <= MOST_PROMPTS:
        raise InvalidRequest("bad_prompts", f"Give 1 to {MOST_PROMPTS:,} prompts, not {len(prompts):,}.")
    if not 1 <= at_once <= MOST_AT_ONCE:
        raise InvalidRequest("bad_at_once", f"at_once must be from 1 to {MOST_AT_ONCE}.")
    room, done = asyncio.Semaphore(at_once), 0

    async def one(place: int, prompt: Prompt) -> Outcome:
        nonlocal done
        async with room:
            outcome = await run_policy(
                policy,
                prompt,
                asker,
                max_new_tokens=max_new_tokens,
                seed=prompt_seed(seed, place),
                include_trace=include_trace,
                allow_unit_tests=allow_unit_tests,
            )
        done += 1
        if report:
            report(done, len(prompts), "Prompts")
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_plainly(one(place, prompt))) for place, prompt in enumerate(prompts)]
    found = [task.result() for task in tasks]
    failed = next((outcome for outcome in found if isinstance(outcome, InferenceError)), None)
    if failed is not None:
        raise failed
    return summary([outcome for outcome in found if isinstance(outcome, Outcome)])


async def _plainly(work: Any) -> Outcome | InferenceError:
    """A refusal as a value: a task group would wrap it, and hide its sentence."""
    try:
        return await work
    except InferenceError as error:
        return error


def prompt_seed(seed: int, place: int) -> int:
    return derived_seed(seed, -1, place)


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    n, passed = len(outcomes), sum(o.accepted for o in outcomes)
    return {
        "num_prompts": n,
        "success_rate": passed / n,
        "avg_score": sum(o.score for o in outcomes) / n,
        "avg_latency_ms": sum(o.latency_ms for o in outcomes) / n,
        "avg_tokens": sum(o.tokens for o in outcomes) / n,
        "pass_count": passed,
        "fail_count": n - passed,
        "spent_tokens": sum(o.spent_tokens for o in outcomes),
        "prompt_tokens": sum(o.prompt_tokens for o in outcomes),
        "outputs": [o.to_wire() for o in outcomes],
    }


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
    """{"results": [Outcome as JSON, or {"error": {...}} for a policy that was refused]}, in the order given.

    One after another, so that none takes the other's time, and with the same seed.
    """
    if not 1 <= len(policies) <= MOST_POLICIES:
        raise InvalidRequest("bad_policies", f"Give 1 to {MOST_POLICIES} policies, not {len(policies)}.")
    each = list(askers) if isinstance(askers, Sequence) else [askers] * len(policies)
    results: list[dict[str, Any]] = []
    for policy, asker in zip(policies, each, strict=True):
        try:
            outcome = await run_policy(
                policy,
                prompt,
                asker,
                max_new_tokens=max_new_tokens,
                seed=seed,
                include_trace=include_trace,
                allow_unit_tests=allow_unit_tests,
            )
            results.append(outcome.to_wire())
        except InvalidRequest as refusal:
            results.append({"error": refusal.to_wire()})
        if report:
            report(len(results), len(policies), policy.title)
    return {"results": results}
