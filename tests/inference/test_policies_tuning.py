"""Many prompts, several policies, and the search for better settings."""

from __future__ import annotations

import pytest

from inference.errors import InvalidRequest
from inference.policies.evaluate import compare, evaluate
from inference.policies.schema import Policy
from inference.policies.tuning import auto_tune, check_space
from tests.inference.scripted import Scripted, said

ONCE = {"optimization": {"retry_on_failure": 0}}
GOOD = Policy.parse({"constraints": {"forbidden_terms": ["bad"]}, **ONCE})


def by_temperature(wanted, n):
    """Good below 0.5, and longer the colder."""
    return said(
        "good " * (2 if wanted.sampling.temperature < 0.2 else 1) if wanted.sampling.temperature < 0.5 else "bad"
    )


async def test_an_evaluation_counts_what_was_accepted():
    asker, seen = Scripted(["bad", "good good", "good"]), []
    found = await evaluate(GOOD, ["a", "b", "c"], asker, seed=3, report=lambda *args: seen.append(args))
    assert (found["num_prompts"], found["pass_count"], found["fail_count"]) == (3, 2, 1)
    assert found["success_rate"] == pytest.approx(2 / 3)
    assert found["avg_tokens"] == pytest.approx(4 / 3)
    assert [o["output"] for o in found["outputs"]] == ["bad", "good good", "good"]
    assert [o["trace"] for o in found["outputs"]] == [None] * 3
    assert [args[:2] for args in seen] == [(1, 3), (2, 3), (3, 3)]
    assert len({rows[0].sampling.seed for rows in asker.rounds}) == 3
    again = Scripted(["x"])
    await evaluate(GOOD, ["a", "b", "c"], again, seed=3, at_once=3)
    seeds = [{rows[0].sampling.seed for rows in each.rounds} for each in (asker, again)]
    assert seeds[0] == seeds[1]


async def test_an_evaluation_that_is_refused_says_why():
    with pytest.raises(InvalidRequest, match="Not here"):
        await evaluate(GOOD, ["a", "b"], Scripted(refuse=lambda w: "Not here."), at_once=2)
    with pytest.raises(InvalidRequest, match="Give 1 to"):
        await evaluate(GOOD, [], Scripted())


async def test_policies_are_compared_on_one_prompt_with_one_seed():
    other = Policy.parse({"sampling": {"method": "ssd"}})
    asker = Scripted(["good"], refuse=lambda w: "No drafts." if w.draft else "")
    found = await compare([GOOD, other, GOOD], "a", asker, seed=5)
    first, refused, third = found["results"]
    assert (first["output"], first["seed"], third["seed"]) == ("good", 5, 5)
    assert first["trace"]["policy_name"] == "general"
    assert refused["error"]["message"] == "No drafts."


async def test_a_grid_finds_the_best_and_names_itself():
    space = {"sampling.temperature": [0.9, 0.3, 0.1], "optimization.best_of_n": [1, 2]}
    trials, seen = [], []
    found = await auto_tune(
        GOOD, space, ["a", "b"], Scripted(by_temperature), on_trial=trials.append, report=lambda *a: seen.append(a)
    )
    assert found["trials"] == trials
    assert [t["values"] for t in trials] == [
        {"sampling.temperature": t, "optimization.best_of_n": n} for t in (0.9, 0.3, 0.1) for n in (1, 2)
    ]
    assert [t["success_rate"] for t in trials] == [0, 0, 1, 1, 1, 1]
    assert found["best_trial"]["values"]["sampling.temperature"] in (0.3, 0.1)
    assert found["best_policy"]["sampling"]["temperature"] == found["best_trial"]["values"]["sampling.temperature"]
    named = {k: found["search"][k] for k in ("kind", "possible", "ended", "spent_tokens")}
    assert named == {"kind": "grid", "possible": 6, "ended": "all", "spent_tokens": 24}
    assert [a[:2] for a in seen] == [(n, 6) for n in range(1, 7)]


async def test_a_random_search_draws_different_settings_by_its_seed():
    space = {"sampling.temperature": [0.1, 0.2, 0.3, 0.4], "sampling.top_k": [10, 20, 30, 40]}

    async def drawn(seed):
        found = await auto_tune(GOOD, space, ["a"], Scripted(), search="random", max_trials=5, seed=seed)
        assert found["search"]["ended"] == "max_trials"
        return [tuple(t["values"].values()) for t in found["trials"]]

    one, same, other = await drawn(1), await drawn(1), await drawn(2)
    assert one == same != other
    assert len(set(one)) == 5
    doubled = await auto_tune(GOOD, {"sampling.top_k": [5, 5]}, ["a"], Scripted(), search="random")
    assert len(doubled["trials"]) == 2


async def test_budgets_of_a_search_hold():
    space = {"sampling.temperature": [0.9, 0.3, 0.1]}
    found = await auto_tune(GOOD, space, ["a"], Scripted(by_temperature), max_trials=2)
    assert (len(found["trials"]), found["search"]["ended"]) == (2, "max_trials")
    found = await auto_tune(GOOD, space, ["a"], Scripted(["word " * 10]), token_budget=15, max_new_tokens=20)
    assert (len(found["trials"]), found["search"]["ended"]) == (2, "token_budget")


async def test_settings_that_are_refused_are_listed_and_cost_no_trial():
    space = {"sampling.method": ["greedy", "top-k"], "sampling.temperature": [0.1, 0.3]}
    found = await auto_tune(GOOD, space, ["a"], Scripted(by_temperature), max_trials=2)
    assert [bool(t["refused"]) for t in found["trials"]] == [True, True, False, False]
    assert "does not take temperature" in found["trials"][0]["refused"]
    assert found["search"]["ended"] == "all"
    with pytest.raises(InvalidRequest, match="No setting of the search space"):
        await auto_tune(GOOD, {"sampling.method": ["top-q"]}, ["a"], Scripted())


async def test_an_empty_space_measures_the_policy_itself():
    found = await auto_tune(GOOD, {}, ["a"], Scripted())
    assert (len(found["trials"]), found["best_trial"]["values"]) == (1, {})


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"sampling.temprature": [1]}, "Did you mean sampling.temperature?"),
        ({"temperature": [1]}, "Did you mean sampling.temperature?"),
        ({"sampling.temperature": []}, "1 to 64 values"),
        ({"sampling.temperature": 0.5}, "1 to 64 values"),
        ({"sampling.temperature": [float("nan")]}, "finite"),
    ],
)
def test_a_space_that_names_nothing_is_refused(space, says):
    with pytest.raises(InvalidRequest, match=says.replace("?", r"\?")):
        check_space(space)
