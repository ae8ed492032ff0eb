"""Looks for the best settings of a policy, over a space that is named, within a budget."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from inference.errors import InvalidRequest
from inference.policies.asking import Asker
from inference.policies.evaluate import Prompt, Report, evaluate
from inference.policies.schema import PARTS, Policy, nearest

Search = Literal["grid", "random"]
Values = dict[str, Any]

MOST_TRIALS = 256
REFUSED_TIMES = 4  # combinations looked at for each trial, since some are refused
MOST_VALUES = 64  # of one field
MOST_FIELDS = 8
TUNABLE_PARTS = ("sampling", "steering", "constraints", "verifiers", "optimization", "objective")
_MEASURES = (
    "success_rate", "avg_score", "avg_latency_ms", "avg_tokens", "pass_count", "fail_count", "spent_tokens",
    "prompt_tokens",
)  # fmt: skip


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

    grid: every combination in order, the last field changing fastest, until `max_trials` were run. random: different
    combinations, drawn by `seed`. All trials have the same prompts and seeds. No trial begins once `token_budget` is
    spent. A combination that is refused, such as greedy with a temperature, is listed and counts for none.

    {"best_policy", "best_trial", "trials": [{"policy", "values", "success_rate", "avg_score", "avg_latency_ms",
    "avg_tokens", "pass_count", "fail_count", "spent_tokens", "prompt_tokens", "refused"}], "search": {"kind", "seed",
    "space", "possible", "max_trials", "token_budget", "spent_tokens", "ended"}}. Best by success_rate, then avg_score,
    then lower latency. A setting that is refused is a trial with its sentence in "refused", and null measures.
    Raises InvalidRequest where all were refused.
    """
    check_space(space)
    if not 1 <= max_trials <= MOST_TRIALS:
        raise InvalidRequest("bad_max_trials", f"max_trials must be from 1 to {MOST_TRIALS}.")
    possible = math.prod(len(values) for values in space.values())
    trials: list[dict[str, Any]] = []
    spent, ran, ended = 0, 0, "all"
    for values in _settings(space, search, max_trials * REFUSED_TIMES, possible, seed):
        if ran == max_trials:
            ended = "max_trials"
            break
        if token_budget is not None and spent >= token_budget:
            ended = "token_budget"
            break
        trial = await _trial(
            base, values, prompts, asker,
            max_new_tokens=max_new_tokens, seed=seed, at_once=at_once, allow_unit_tests=allow_unit_tests,
        )  # fmt: skip
        spent += trial["spent_tokens"] or 0
        ran += not trial["refused"]
        trials.append(trial)
        if on_trial:
            on_trial(trial)
        if report:
            report(ran, min(max_trials, possible), ", ".join(f"{k} {v}" for k, v in values.items()))
    best = best_trial(trials)
    return {
        "best_policy": best["policy"],
        "best_trial": best,
        "trials": trials,
        "search": {
            "kind": search,
            "seed": seed,
            "space": {name: list(values) for name, values in space.items()},
            "possible": possible,
            "max_trials": max_trials,
            "token_budget": token_budget,
            "spent_tokens": spent,
            "ended": ended,
        },
    }


def check_space(space: Mapping[str, Sequence[Any]]) -> None:
    """Raises InvalidRequest("unknown_field") naming the nearest, or ("bad_search_space")."""
    if len(space) > MOST_FIELDS:
        raise _bad(f"The search space has {len(space)} fields; {MOST_FIELDS} is the most. Leave some out.")
    known = [f"{part}.{f.name}" for part in TUNABLE_PARTS for f in dataclasses.fields(PARTS[part])]  # type: ignore[arg-type]
    for name, values in space.items():
        if name not in known:
            raise InvalidRequest(
                "unknown_field",
                f"The search space names {name[:60]!r}, which no policy has. {nearest(name, known)}Name fields such as "
                "sampling.temperature or optimization.best_of_n.",
            )
        if not isinstance(values, list | tuple) or not 1 <= len(values) <= MOST_VALUES:
            raise _bad(f"{name} needs a list of 1 to {MOST_VALUES} values to try.")
        if any(isinstance(value, float) and not math.isfinite(value) for value in values):
            raise _bad(f"The values of {name} must be finite.")


def best_trial(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Raises InvalidRequest where none could be run."""
    ran = [trial for trial in trials if not trial["refused"]]
    if not ran:
        said = trials[0]["refused"] if trials else "The token budget allows none."
        raise InvalidRequest("no_trial", f"No setting of the search space can be run. {said}")
    return max(ran, key=lambda t: (t["success_rate"], t["avg_score"], -t["avg_latency_ms"]))


def with_values(base: Policy, values: Mapping[str, Any]) -> Policy:
    """The policy with these dotted fields in place. Its id is dropped: it is another one. Raises InvalidRequest."""
    data = base.to_wire() | {"id": None}
    for name, value in values.items():
        part, _, field = name.partition(".")
        data[part] = {**data[part], field: value}
    return Policy.parse(data)


async def _trial(base: Policy, values: Values, prompts: Sequence[Prompt], asker: Asker, **how: Any) -> dict[str, Any]:
    try:
        policy = with_values(base, values)
        found = await evaluate(policy, prompts, asker, **how)
    except InvalidRequest as refusal:
        return {"policy": None, "values": values, **dict.fromkeys(_MEASURES), "refused": refusal.message}
    return {"policy": policy.to_wire(), "values": values, **{name: found[name] for name in _MEASURES}, "refused": ""}


def _settings(space: Mapping[str, Sequence[Any]], search: str, most: int, possible: int, seed: int) -> Iterator[Values]:
    """At most `most` combinations, by their place in the grid."""
    if search == "grid":
        places: Sequence[int] = range(min(most, possible))
    elif search == "random":
        places = random.Random(seed).sample(range(possible), min(most, possible))  # noqa: S311
    else:
        raise _bad(f"There is no search {str(search)[:40]!r}. Use grid or random.")
    return (_at(space, place) for place in places)


def _at(space: Mapping[str, Sequence[Any]], place: int) -> Values:
    """The combination at a place, the last field changing fastest."""
    values: Values = {}
    for name, options in reversed(list(space.items())):
        place, at = divmod(place, len(options))
        values[name] = options[at]
    return {name: values[name] for name in space}


def _bad(sentence: str) -> InvalidRequest:
    return InvalidRequest("bad_search_space", sentence)
