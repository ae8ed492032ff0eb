"""What a run may need at most, and how long it will take, before it begins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inference.policies.schema import Policy
from inference.types import Message, ModelInfo
from steering.access.estimate import tokens_in

USUAL_RATE = 120.0  # tokens per second of the default model on a small CPU, candidates sharing the batch
Prompt = str | tuple[Message, ...]


@dataclass(frozen=True)
class Estimate:
    """`tokens` is the most that may be read and written; `seconds` what it takes where first rounds are accepted."""

    completions: int
    tokens: int
    seconds: float


def rounds_of(policy: Policy) -> int:
    """The most rounds there can be."""
    tries = policy.optimization
    voices = len(policy.sampling.ensemble_models) or 1
    return (1 + tries.retry_on_failure + len(tries.fallback_methods) + tries.self_revision_loops) * voices


def estimate(
    policies: Iterable[Policy], prompts: Iterable[Prompt], max_new_tokens: int, model: ModelInfo, times: int = 1
) -> Estimate:
    """Of every policy on every prompt, `times` over."""
    policies, prompts = list(policies), list(prompts)
    read = [tokens_in([p] if isinstance(p, str) else [m.content for m in p]) for p in prompts]
    completions, most, first = 0, 0, 0
    for policy in policies:
        for tokens in read:
            rows = policy.candidates * rounds_of(policy)
            written = rows * max_new_tokens
            if policy.objective.token_budget:
                written = min(written, policy.objective.token_budget)
            repairs = rounds_of(policy) - 1  # each is told the answer before, and what was wrong
            most += written + rows * tokens + repairs * policy.candidates * max_new_tokens
            if "factuality" in policy.verifiers.enabled:
                most += rows * (tokens + max_new_tokens)
            completions += policy.candidates
            first += policy.candidates * max_new_tokens
    rate = model.tokens_per_second or USUAL_RATE
    return Estimate(completions * times, most * times, round(first * times / max(rate, 1.0), 1))
