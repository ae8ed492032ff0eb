"""Work with policies while somebody waits: for /v1 and Mechanex's client, who keep what they asked themselves."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from django.conf import settings

from inference.client import Inference
from inference.errors import InferenceError, Unavailable
from inference.policies.runner import run_policy
from inference.policies.schema import Policy
from inference.policies.trace import Outcome
from inference.types import Message, ModelInfo
from steering import draining, gateway
from steering.access import admission
from steering.access.principal import Principal
from steering.database import unless_left
from steering.policies.asking import Tally, asker_of, check_models, ready
from steering.policies.chosen import Chosen, choose
from steering.policies.estimate import estimate
from steering.policies.threads import in_thread

__all__ = ["LIMIT_SECONDS", "Chosen", "choose", "run_now", "work_now"]

T = TypeVar("T")

LIMIT_SECONDS = 55.0  # clients of the API wait for a minute
MAX_SEED = 2**31


async def run_now(
    who: Principal,
    chosen: Chosen,
    prompt: str | tuple[Message, ...],
    *,
    model: ModelInfo,
    max_new_tokens: int = 128,
    seed: int | None = None,
    include_trace: bool = False,
    source: str = "openai",
    limit_seconds: float | None = LIMIT_SECONDS,
) -> Outcome:
    """Run it and wait, as `work_now` does."""

    async def run(client: Inference, served: ModelInfo, tally: Tally) -> Outcome:
        return await run_policy(
            chosen.policy,
            prompt,
            asker_of(client, served, chosen.lender, tally),
            max_new_tokens=max_new_tokens,
            seed=secrets.randbelow(MAX_SEED) if seed is None else seed,
            include_trace=include_trace,
            allow_unit_tests=settings.STEERBOARD_UNIT_TESTS,
        )

    tokens = estimate([chosen.policy], [prompt], max_new_tokens, model).tokens
    return await work_now(
        who, [chosen.policy], run, model=model, tokens=tokens, source=source, limit_seconds=limit_seconds
    )


async def work_now(
    who: Principal,
    policies: Sequence[Policy],
    work: Callable[[Inference, ModelInfo, Tally], Awaitable[T]],
    *,
    model: ModelInfo,
    tokens: int,
    source: str,
    kind: str = "policy",
    limit_seconds: float | None = None,
) -> T:
    """What `work` returns, done on the gateway's loop; reserved, settled and refunded through admission as any
    completion. `tokens` is the most that it may read and write. Leaving early stops it.

    From any loop. Raises Denied, InferenceError, Unavailable("policy_too_slow") where the time is not enough.
    """
    draining.refuse_new_work()
    await in_thread(check_models)(who, policies, model)
    id = f"{kind}-{secrets.token_hex(12)}"
    reserving = in_thread(admission.reserve)(who, work=id, kind=kind, model=model.id, tokens=tokens, source=source)
    reserved = await unless_left(reserving, lambda made: gateway.spawn(in_thread(admission.refund)(made.id)))
    hold, tally = draining.hold(), Tally()
    try:
        async with asyncio.timeout(limit_seconds):
            return await gateway.joined(_work(work, model.id, tally))
    except TimeoutError:
        raise too_slow(limit_seconds or 0.0) from None
    finally:
        gateway.spawn(_settle(reserved.id, tally, hold))


async def _work(work: Callable[[Inference, ModelInfo, Tally], Awaitable[T]], model_id: str, tally: Tally) -> T:
    client = await gateway.opened()
    return await work(client, await ready(client, model_id), tally)


async def _settle(reservation: Any, tally: Tally, hold: draining.Hold) -> None:
    """What was read and written so far is charged, also of a run that failed or was left."""
    try:
        if tally.tokens:
            used = {"prompt_tokens": tally.prompt_tokens, "completion_tokens": tally.completion_tokens}
            await in_thread(admission.settle)(reservation, **used)
        else:
            await in_thread(admission.refund)(reservation)
    finally:
        hold.release()


def too_slow(seconds: float) -> InferenceError:
    return Unavailable(
        "policy_too_slow",
        f"The policy was not done after {seconds:g} s. Give it a latency budget, fewer candidates or retries, or fewer "
        "tokens; or start it as a run on the page Policies or at /api/v1/policies/run, which goes on until it ends.",
    )
