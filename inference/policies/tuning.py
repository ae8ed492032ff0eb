"""Looks for the best settings of a policy, over a space that is named, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from inference.policies.asking import Asker
from inference.policies.evaluate import Prompt, Report
from inference.policies.schema import Policy

Search = Literal["grid", "random"]


async def auto_tune(
    base: Policy,
    space: Mapping[str, Sequence[Any]],
    prompts: Sequence[Prompt],
    asker: Asker,
    *,
    search: Search = "grid",
    max_trials: int = 24,
    token_budget: int | None = None,
    max_new_tokens: int = 128,
    seed: int = 0,
    at_once: int = 1,
    allow_unit_tests: bool = False,
    report: Report | None = None,
    on_trial: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """`space` maps dotted fields, such as "sampling.temperature", to the values to try.

    {"best_policy", "best_trial", "trials": [{"policy", "values", "success_rate", "avg_score", "avg_latency_ms",
    "avg_tokens", "pass_count", "fail_count", "spent_tokens", "refused"}], "search": {"kind", "seed", "space",
    "possible", "max_trials", "token_budget", "spent_tokens", "ended"}}. Best by success_rate, then avg_score, then
    lower latency. A setting that is refused is a trial with its sentence in "refused".
    """
    raise NotImplementedError


def check_space(space: Mapping[str, Sequence[Any]]) -> None:
    """Raises InvalidRequest("unknown_field") naming the nearest, or ("bad_search_space")."""
    raise NotImplementedError
