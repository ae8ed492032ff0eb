"""Begins runs of policies: checked, charged, saved, and carried by a job."""

from __future__ import annotations

import dataclasses
import math
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction

from inference.errors import InvalidRequest
from inference.policies.schema import Policy
from inference.policies.tuning import check_space
from inference.types import Message, ModelInfo
from steering import draining
from steering.access.principal import Principal
from steering.jobs.runner import job_cancel, job_start
from steering.policies.asking import check_models
from steering.policies.chosen import Chosen, of_entry, refuse_unit_tests
from steering.policies.estimate import Estimate, Prompt, estimate
from steering.policies.models import PolicyRun
from steering.policies.running import MAX_SEED
from steering.policies.work import KINDS, PolicyWork
from steering.refusals import need, storable

MOST_COMPARED = 4
MOST_PROMPTS = {PolicyRun.Kind.EVALUATE: 200, PolicyRun.Kind.TUNE: 50}
MOST_TRIALS = 64
MOST_AT_ONCE = 8
MAX_PROMPT = 100_000
MAX_NEW_TOKENS = 2048
LENT = ("steering.vector_id", "steering.preset", "steering.vector")  # what nobody may vary of another's policy


def start(
    who: Principal,
    kind: str,
    chosen: Sequence[Chosen],
    asked: dict[str, Any],
    model: ModelInfo,
    *,
    source: str = "policies",
) -> PolicyRun:
    """Save a run and begin it. `asked` comes from `asking_of`. Raises InferenceError, Denied."""
    draining.refuse_new_work()
    need(bool(model.id), "no_model", "No model is ready yet, and a run needs to know which one. Try again.")
    check_models(who, [one.policy for one in chosen], model)
    for one in chosen:
        refuse_unit_tests(one.policy)
    if asked["seed"] is None:
        asked = asked | {"seed": secrets.randbelow(MAX_SEED)}
    run = PolicyRun(owner=who.user, kind=kind, model_id=model.id, asked=asked)
    run.policies = [one.entry() for one in chosen]
    run.title = title_of(run)
    with transaction.atomic():
        run.save()
        run.job = job_start(
            owner=who.user,
            kind=KINDS[PolicyRun.Kind(run.kind)],
            title=run.title,
            request=PolicyWork("", str(run.pk), model.id),
            about={"policies": [one.name for one in chosen]},
            who=who,
            source=source,
            tokens=expected(run.kind, chosen, asked, model).tokens,
        )
        run.save(update_fields=["job"])
    return run


def title_of(run: PolicyRun) -> str:
    names = [entry["name"] for entry in run.policies]
    match run.kind:
        case PolicyRun.Kind.COMPARE:
            return f"Compare {', '.join(names[:-1])} and {names[-1]}"[:200]
        case PolicyRun.Kind.EVALUATE:
            return f"Evaluate {names[0]} over {len(run.asked['prompts'])} prompts"[:200]
        case PolicyRun.Kind.TUNE:
            return f"Tune {names[0]}, {run.asked['trials']} trials"[:200]
        case PolicyRun.Kind.REPLAY:
            return f"Run {names[0]} again from its trace"[:200]
    return f"Run {names[0]}"[:200]


def replay_start(who: Principal, run: PolicyRun, index: int = 0, *, source: str = "policies") -> PolicyRun:
    """Run one of a run's results again from its trace. Raises InvalidRequest("no_trace"), Denied."""
    results = (run.result or {}).get("results", [])
    need(
        0 <= index < len(results) and bool(results[index].get("trace")),
        "no_trace",
        "There is no trace to run again: only runs and comparisons that have succeeded keep one.",
    )
    entry = run.policies[min(index, len(run.policies) - 1)]
    trace = results[index]["trace"]
    asked = {
        "prompts": run.asked["prompts"],
        "max_new_tokens": trace["max_new_tokens"],
        "seed": trace["seed"],
        "of": str(run.pk),
        "index": index,
    }
    return start(
        who, PolicyRun.Kind.REPLAY, [of_entry(who.user, entry)], asked, ModelInfo("ready", run.model_id), source=source
    )


def run_cancel(run: PolicyRun) -> bool:
    """End it; False when it had ended already."""
    return run.job is not None and job_cancel(run.job)


# ---- what is asked ----


def asking_of(
    kind: str,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 128,
    seed: int | None = None,
    at_once: int = 1,
    space: Mapping[str, Sequence[Any]] | None = None,
    search: str = "grid",
    max_trials: int = 24,
    token_budget: int | None = None,
) -> dict[str, Any]:
    """What a run keeps of a request, checked. Raises InvalidRequest whose code is the field's name."""
    most = MOST_PROMPTS.get(PolicyRun.Kind(kind), 1)
    need(bool(prompts), "prompts", "There is no prompt. Write at least one.")
    need(len(prompts) <= most, "prompts", f"{len(prompts):,} prompts are too many here: {most} is the most.")
    need(
        1 <= max_new_tokens <= MAX_NEW_TOKENS,
        "max_new_tokens",
        f"An answer may have 1 to {MAX_NEW_TOKENS:,} tokens, not {max_new_tokens:,}.",
    )
    need(seed is None or 0 <= seed < 2**53, "seed", "The seed must be a whole number from 0 to 9007199254740991.")
    need(1 <= at_once <= MOST_AT_ONCE, "at_once", f"1 to {MOST_AT_ONCE} prompts can be answered at once.")
    asked = {
        "prompts": [stored_prompt(prompt) for prompt in prompts],
        "max_new_tokens": max_new_tokens,
        "seed": seed,
        "at_once": at_once,
    }
    if kind != PolicyRun.Kind.TUNE:
        return asked
    space = dict(space or {})
    need(bool(space), "space", "The search space is empty. Choose at least one field and give values to try.")
    check_space(space)
    need(search in ("grid", "random"), "search", "The search is either grid or random.")
    need(1 <= max_trials <= MOST_TRIALS, "max_trials", f"A search has 1 to {MOST_TRIALS} trials, not {max_trials}.")
    need(
        token_budget is None or 1 <= token_budget <= 10_000_000,
        "token_budget",
        "The token budget must be 1 to 10,000,000. Leave it out for none.",
    )
    return asked | {
        "space": {name: list(values) for name, values in space.items()},
        "search": search,
        "max_trials": max_trials,
        "trials": min(max_trials, math.prod(len(values) for values in space.values())),
        "token_budget": token_budget,
    }


def stored_prompt(prompt: Prompt) -> Any:
    """A text as it is; messages as JSON. Raises InvalidRequest("prompts")."""
    texts = [prompt] if isinstance(prompt, str) else [message.content for message in prompt]
    for text in texts:
        storable(text, "The prompt")
    size = sum(map(len, texts))
    need(size <= MAX_PROMPT, "prompts", f"A prompt has {size:,} characters; {MAX_PROMPT:,} is the most. Shorten it.")
    need(any(text.strip() for text in texts), "prompts", "A prompt is empty. Write something, or remove it.")
    return prompt if isinstance(prompt, str) else [message.to_wire() for message in prompt]


def as_prompt(text: str, *, chat: bool, system: str = "") -> Prompt:
    """One message of a chat, or a text to go on from."""
    if not chat:
        return text
    return (*((Message("system", system),) if system else ()), Message("user", text))


def refuse_lent_space(user: Any, chosen: Chosen, space: Mapping[str, Any]) -> None:
    """A policy of another lends the vector that it names, and no other. Raises InvalidRequest("vector_lent")."""
    varied = [name for name in space if name in LENT]
    need(
        not varied or chosen.lender == user,
        "vector_lent",
        f"{chosen.name} is somebody else's, and lends the vector that it steers with, no other: {', '.join(varied)} "
        "cannot be varied. Clone the policy first.",
    )


def expected(kind: str, chosen: Sequence[Chosen], asked: Mapping[str, Any], model: ModelInfo) -> Estimate:
    """What it takes at most."""
    from steering.policies.work import prompt_of

    policies = [one.policy for one in chosen]
    prompts = [prompt_of(prompt) for prompt in asked["prompts"]]
    if kind != PolicyRun.Kind.TUNE:
        return estimate(policies, prompts, asked["max_new_tokens"], model)
    largest = [_largest(policy, asked["space"]) for policy in policies]
    found = estimate(largest, prompts, asked["max_new_tokens"], model, times=asked["trials"])
    if asked["token_budget"]:  # of what is written; what is read comes on top
        found = dataclasses.replace(found, tokens=min(found.tokens, 3 * asked["token_budget"] + 1000))
    return found


def _largest(policy: Policy, space: Mapping[str, Sequence[Any]]) -> Policy:
    """The policy of the space that writes most."""
    for path, values in space.items():
        section, _, name = path.partition(".")
        whole = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
        if name in ("best_of_n", "num_candidates", "retry_on_failure", "self_revision_loops") and whole:
            part = getattr(policy, section)
            part = dataclasses.replace(part, **{name: max(whole)})
            policy = dataclasses.replace(policy, **{section: part})
    return policy


def check_kind(kind: str, chosen: Sequence[Chosen]) -> None:
    """Raises InvalidRequest("policies")."""
    many = len(chosen)
    if kind == PolicyRun.Kind.COMPARE:
        need(2 <= many <= MOST_COMPARED, "policies", f"2 to {MOST_COMPARED} policies can be compared, not {many}.")
    elif many != 1:
        raise InvalidRequest("policies", "Choose one policy.")
