"""What a run of a policy does, by an asker that follows a script."""

from __future__ import annotations

import json
import time

import pytest

from inference.errors import InvalidRequest
from inference.policies.asking import About
from inference.policies.replaying import differences, replay
from inference.policies.runner import run_policy
from inference.policies.schema import Policy
from inference.policies.settings import Place, derived_seed, settings_for
from inference.policies.trace import Trace
from inference.types import AppliedConstraint, Beam, Message, Receipt
from tests.inference.scripted import Scripted, said

HELLO = (Message("user", "Say hello"),)


def policy(**parts) -> Policy:
    return Policy.parse(parts)


def forbid(*terms: str, **more) -> Policy:
    return policy(constraints={"forbidden_terms": list(terms)}, **more)


async def run(wanted: Policy, asker: Scripted, prompt=HELLO, **how):
    return await run_policy(wanted, prompt, asker, seed=how.pop("seed", 7), **how)


# ---- candidates ----


async def test_candidates_are_sent_together_with_seeds_of_their_own():
    asker = Scripted()
    outcome = await run(policy(optimization={"best_of_n": 4}), asker)
    (rows,) = asker.rounds
    assert [w.sampling.seed for w in rows] == [derived_seed(7, 0, slot) for slot in range(4)]
    assert len({w.sampling.seed for w in rows}) == 4
    assert [c.seed for c in outcome.trace.candidates] == [w.sampling.seed for w in rows]
    assert [c.slot for c in outcome.trace.candidates] == [0, 1, 2, 3]
    assert all(w.messages == HELLO for w in rows)


async def test_the_larger_of_best_of_n_and_num_candidates_counts():
    asker = Scripted()
    await run(policy(sampling={"num_candidates": 3}, optimization={"best_of_n": 2}), asker)
    assert len(asker.rounds[0]) == 3


async def test_without_a_seed_one_is_drawn_and_told():
    one, two = [await run(policy(), Scripted(), seed=None) for _ in range(2)]
    assert one.seed != two.seed
    assert one.trace.seed == one.seed


async def test_greedy_writes_once_and_says_so():
    asker = Scripted()
    outcome = await run(policy(sampling={"method": "greedy"}, optimization={"best_of_n": 4}), asker)
    assert len(asker.rounds[0]) == 1
    assert "all would be the same" in outcome.trace.notes[0]


async def test_the_likeliest_of_equals_wins_where_reranking_is_asked_for():
    answers = [said("a", logprob=-2.0), said("b", logprob=-0.5), said("c", logprob=-1.0)]
    optimization = {"best_of_n": 3}
    assert (await run(policy(optimization=optimization), Scripted(answers))).output == "b"
    plain = policy(optimization=optimization, verifiers={"rerank": False})
    assert (await run(plain, Scripted(answers))).output == "a"


async def test_what_is_accepted_wins_over_what_is_likelier():
    answers = [said("bad word", logprob=-0.1), said("good word", logprob=-3.0)]
    outcome = await run(forbid("BAD", optimization={"best_of_n": 2}), Scripted(answers))
    assert (outcome.output, outcome.accepted, outcome.score) == ("good word", True, 1.0)


async def test_the_better_of_those_that_fail_is_the_answer():
    parts = {"constraints": {"regex_pattern": "x+"}, "verifiers": {"enabled": ["regex"]}}
    parts |= {"optimization": {"best_of_n": 2, "retry_on_failure": 0}}
    asker = Scripted([said("yy", logprob=-0.1), said("no", logprob=-5.0)])
    outcome = await run(policy(**parts), asker)
    assert (outcome.output, outcome.accepted, outcome.score) == ("yy", False, 0.0)
    assert outcome.trace.selection.penalties == {"regex": 0.4, "constraints": 1.0}


async def test_beams_are_the_candidates_of_one_request():
    beams = tuple(Beam(text, logprob, logprob / 2, 2) for text, logprob in (("one", -1.0), ("two", -2.0)))
    done = said("one")
    done = type(done)(**{**done.__dict__, "receipt": Receipt("fake", "1", 0, beams=beams), "logprobs": ()})
    asker = Scripted([done])
    wanted = forbid("one", sampling={"method": "constrained-beam-search"}, optimization={"best_of_n": 2})
    outcome = await run(wanted, asker)
    assert (len(asker.rounds[0]), outcome.output) == (1, "two")
    params = asker.rounds[0][0].sampling
    assert (params.beam_width, params.temperature, params.logprobs) == (4, 0.0, False)
    assert [c.mean_logprob for c in outcome.trace.candidates] == [-0.5, -1.0]


# ---- settings ----


def temperatures(wanted: Policy, step: int = 0) -> list[float]:
    n = wanted.candidates
    return [settings_for(wanted, "top-k", Place(s, step, n), max_tokens=9, seed=0)[0].temperature for s in range(n)]


def test_retries_get_colder_and_their_steps_compound():
    assert [temperatures(policy(), step)[0] for step in range(4)] == [0.7, 0.62, 0.46, 0.22]
    assert temperatures(policy(sampling={"temperature": 0.1}), 2) == [0.05]
    assert temperatures(policy(sampling={"temperature": 0.0}), 2) == [0.0]
    nucleus = policy(sampling={"method": "top-p"})
    assert settings_for(nucleus, "top-p", Place(0, 2, 1), max_tokens=9, seed=0)[0].top_p == pytest.approx(0.78)


def test_diversity_makes_later_candidates_hotter_in_turn():
    wanted = policy(sampling={"diversity_strength": 2.0, "num_candidates": 5})
    assert temperatures(wanted) == pytest.approx([0.7, 0.9, 1.1, 0.7, 0.9])


def test_a_schedule_counts_candidates_then_rounds_and_stays_at_its_end():
    sampling = {"adaptive_temperature": True, "adaptive_temperature_schedule": [0.1, 0.2, 0.3], "num_candidates": 2}
    assert temperatures(policy(sampling=sampling)) == [0.1, 0.2]
    assert temperatures(policy(sampling=sampling), 1) == [0.3, 0.3]


def test_without_a_schedule_temperature_follows_how_sure_the_model_is():
    params, _ = settings_for(policy(sampling={"adaptive_temperature": True}), "top-k", Place(), max_tokens=9, seed=0)
    assert params.adaptive_temperature == 0.1


def test_what_a_method_does_not_take_is_told():
    params, unused = settings_for(policy(), "top-k", Place(), max_tokens=9, seed=3)
    assert (params.top_k, params.top_p, params.seed, params.max_tokens, params.fit) == (50, 1.0, 3, 9, True)
    assert unused == ("top_p",)


# ---- retries and repairs ----


async def test_a_repair_shows_the_model_its_answer_and_what_was_wrong():
    asker = Scripted(["so bad", "so good"])
    outcome = await run(forbid("bad"), asker)
    assert (outcome.output, outcome.accepted) == ("so good", True)
    question, answer, told = asker.rounds[1][0].messages
    assert (question, answer) == (HELLO[0], Message("assistant", "so bad"))
    assert told.role == "user"
    assert "forbidden_terms: it may not contain 'bad'" in told.content
    assert asker.rounds[1][0].sampling.temperature == 0.62
    trace = outcome.trace
    assert [(r.kind, r.why) for r in trace.rounds] == [
        ("first", ""), ("repair", "constraint forbidden_terms: it may not contain 'bad'"),
    ]  # fmt: skip
    assert [(r.round, r.trigger, r.winner_score) for r in trace.retry_events] == [(1, "accepted=false", 0.0)]
    assert trace.rounds[1].told == (answer, told)
    assert trace.selection.round == 1


async def test_a_text_is_repaired_as_a_text():
    asker = Scripted(["so bad", "so good"])
    await run(forbid("bad"), asker, prompt="Once")
    assert asker.rounds[1][0].prompt.startswith("Onceso bad\n\nYour answer was not accepted:")
    assert asker.rounds[1][0].messages is None


async def test_an_answer_whose_beginning_was_given_is_shown_whole():
    asker = Scripted(["bad", "good"])
    await run(forbid("bad"), asker, prompt=(*HELLO, Message("assistant", "So ")))
    assert asker.rounds[1][0].messages[1] == Message("assistant", "So bad")


async def test_retries_beyond_the_repairs_begin_anew():
    asker = Scripted(["bad"])
    wanted = forbid("bad", optimization={"retry_on_failure": 3}, verifiers={"max_retries": 1})
    outcome = await run(wanted, asker)
    assert [r.kind for r in outcome.trace.rounds] == ["first", "repair", "retry", "retry"]
    assert asker.rounds[2][0].messages == HELLO
    assert not outcome.accepted


async def test_without_repairs_a_retry_begins_anew():
    outcome = await run(forbid("bad", verifiers={"repair_on_failure": False}), Scripted(["bad"]))
    assert [r.kind for r in outcome.trace.rounds] == ["first", "retry"]


async def test_no_retry_without_a_failure_or_where_none_is_allowed():
    assert len((await run(policy(), Scripted())).trace.rounds) == 1
    assert len((await run(forbid("bad", optimization={"retry_on_failure": 0}), Scripted(["bad"]))).trace.rounds) == 1


async def test_a_retry_that_would_write_the_same_is_left_out():
    wanted = forbid("bad", sampling={"method": "greedy"}, verifiers={"repair_on_failure": False})
    outcome = await run(wanted, Scripted(["bad"]))
    assert len(outcome.trace.rounds) == 1
    assert "would write the same again" in outcome.trace.notes[0]


async def test_an_unsure_answer_is_written_again():
    wanted = {"confidence_triggered_regeneration": True, "confidence_threshold": 0.5, "retry_on_failure": 0}
    asker = Scripted([said("hm", logprob=-2.0), said("sure", logprob=-0.1)])
    outcome = await run(policy(optimization=wanted), asker)
    assert outcome.output == "sure"
    assert [(r.trigger, r.round) for r in outcome.trace.retry_events] == [("confidence", 1)]
    assert outcome.trace.rounds[1].kind == "confidence"
    assert len((await run(policy(optimization=wanted), Scripted())).trace.rounds) == 1


async def test_a_retry_that_is_refused_leaves_the_best_so_far():
    asker = Scripted(["bad"], refuse=lambda w: "The prompt is too long." if len(w.messages) > 1 else "")
    outcome = await run(forbid("bad"), asker)
    assert (outcome.output, outcome.trace.rounds[1].refused) == ("bad", "The prompt is too long.")


# ---- fallbacks and revisions ----


async def test_fallback_methods_are_tried_in_turn_after_the_retries():
    asker = Scripted(lambda w, n: "good" if w.sampling.temperature == 0 else "bad")
    fallbacks = ["min-p", "greedy", "typical"]
    wanted = forbid("bad", optimization={"retry_on_failure": 1, "fallback_methods": fallbacks})
    outcome = await run(wanted, asker)
    assert [(r.kind, r.method) for r in outcome.trace.rounds] == [
        ("first", "top-k"), ("repair", "top-k"), ("fallback", "min-p"), ("fallback", "greedy"),
    ]  # fmt: skip
    assert (outcome.sampling_method, outcome.accepted) == ("greedy", True)
    assert asker.rounds[2][0].messages == HELLO
    assert asker.rounds[2][0].sampling.min_p == 0.08
    assert set(outcome.trace.candidates[3].settings.unused) == {"temperature", "top_k", "top_p"}
    assert [r.trigger for r in outcome.trace.retry_events] == ["accepted=false", "fallback", "fallback"]


async def test_a_method_that_is_refused_gives_way_to_a_fallback():
    def no_drafts(w):
        return "No drafts here." if w.draft else ""

    wanted = {"sampling": {"method": "ssd", "speculative_steps": 6}}
    outcome = await run(policy(**wanted, optimization={"fallback_methods": ["top-k"]}), Scripted(refuse=no_drafts))
    assert (outcome.sampling_method, outcome.trace.rounds[0].refused) == ("top-k", "No drafts here.")
    with pytest.raises(InvalidRequest, match="No drafts here"):
        await run(policy(**wanted), Scripted(refuse=no_drafts))
    with pytest.raises(InvalidRequest, match="No method of this policy"):
        fallback = {"fallback_methods": ["speculative-decoding"]}
        await run(policy(**wanted, optimization=fallback), Scripted(refuse=no_drafts))


async def test_a_revision_is_taken_unless_it_scores_lower():
    asker = Scripted([said("draft", logprob=-1.0), said("better", logprob=-0.5)])
    outcome = await run(policy(optimization={"self_revision_loops": 1}), asker)
    assert (outcome.output, outcome.trace.rounds[1].kind) == ("better", "revision")
    assert asker.rounds[1][0].messages[1] == Message("assistant", "draft")
    worse = await run(forbid("bad", optimization={"self_revision_loops": 1}), Scripted(["fine", "bad"]))
    assert worse.output == "fine"


async def test_pruning_is_asked_for_at_half_of_the_tokens():
    asker = Scripted()
    await run(policy(optimization={"best_of_n": 5, "branch_and_prune": True}), asker, max_new_tokens=40)
    assert (asker.prunes[0].after, asker.prunes[0].keep) == (20, 3)


# ---- constraints ----


async def test_one_constraint_is_enforced_and_the_others_are_checked():
    constraints = {"json_schema": {"type": "object"}, "required_fields": ["a"], "forbidden_terms": ["x"]}
    asker = Scripted(['{"a": 1}'])
    outcome = await run(policy(constraints={**constraints, "regex_pattern": r"\{.*\}"}), asker)
    schema = json.loads(asker.rounds[0][0].constraint.text)
    assert schema == {"type": "object", "properties": {"a": {}}, "required": ["a"]}
    enforced = outcome.trace.constraints
    assert enforced.enforced == ("json_schema", "required_fields")
    assert enforced.checked == ("regex_pattern", "forbidden_terms")
    assert "regex_pattern is checked at the end" in enforced.why
    assert {c.name: (c.passed, c.enforced) for c in outcome.trace.candidates[0].checks} == {
        "json_schema": (True, True), "required_fields": (True, True), "regex_pattern": (True, False),
        "forbidden_terms": (True, False),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("constraints", "good", "bad"),
    [
        ({"json_mode": True}, ["{}", "[1]"], ["", "{", '{"a":1} yes', "5", '"x"', "{'a': 1}", "[" * 90 + "]" * 90]),
        ({"json_schema": {"properties": {"a": {"type": "integer"}}}}, ['{"a": 1}', "3"], ['{"a": "1"}', "no"]),
        ({"required_fields": ["a", "b"]}, ['{"a":1,"b":2}'], ['{"a":1}', "[]"]),
        ({"regex_pattern": r"\d+-[a-z]"}, ["12-x"], ["12-xy", " 12-x", "12", ""]),
        ({"regex_pattern": "(a|aa)+b"}, ["aab"], ["a" * 4000]),
        ({"grammar": 'start: "yes" | "no" /[0-9]/'}, ["yes", "no4"], ["no", "maybe", "yes!"]),
        ({"grammar": "regex:[ab]+"}, ["abba"], ["abc"]),
        ({"forbidden_terms": ["Straße", "tea"]}, ["coffee"], ["STRASSE", "Tea time"]),
        (
            {"tool_schema": {"name": "add", "parameters": {"properties": {"a": {}}, "required": ["a"]}}},
            ['{"tool_name": "add", "arguments": {"a": 1}}'],
            ['{"tool_name": "sub", "arguments": {"a": 1}}', '{"tool_name": "add", "arguments": {}}', "{}"],
        ),
    ],
)  # fmt: skip
async def test_every_constraint_holds_or_the_answer_is_not_accepted(constraints, good, bad):
    wanted = policy(constraints=constraints, optimization={"retry_on_failure": 0})
    for text in good:
        assert (await run(wanted, Scripted([text]))).accepted, text
    for text in bad:
        outcome = await run(wanted, Scripted([text]))
        assert (outcome.accepted, outcome.constraints_ok, outcome.score) == (False, False, 0.0), text
        assert outcome.reason.startswith("constraint ")


async def test_a_schema_that_cannot_be_enforced_is_checked_and_says_so():
    wanted = policy(constraints={"json_schema": {"type": "object", "not": {"required": ["a"]}}})
    asker = Scripted(['{"a": 1}', "{}"])
    outcome = await run(wanted, asker)
    assert asker.rounds[0][0].constraint is None
    assert (outcome.output, outcome.trace.constraints.checked) == ("{}", ("json_schema",))
    assert "json_schema cannot be enforced: " in outcome.trace.constraints.why


def test_stop_sequences_are_sent():
    params, _ = settings_for(policy(constraints={"stop_sequences": ["\n\n"]}), "top-k", Place(), max_tokens=9, seed=0)
    assert params.stop == ("\n\n",)


async def test_what_the_engine_says_of_a_constraint_is_in_the_trace():
    done = said("{}")
    receipt = Receipt("fake", "1", 0, constraint=AppliedConstraint("json_schema", True, 2))
    outcome = await run(
        policy(constraints={"json_mode": True}), Scripted([type(done)(**{**done.__dict__, "receipt": receipt})])
    )
    assert outcome.trace.candidates[0].constraint == AppliedConstraint("json_schema", True, 2)


# ---- ensembles, drafts, steering ----

TWO = About("fake", "1", True, ("small",), ("fake", "other"))


async def test_models_with_one_tokenizer_answer_token_by_token():
    asker = Scripted(about_=TWO)
    outcome = await run(policy(sampling={"ensemble_models": ["default", "small"]}), asker)
    (member, companion) = asker.rounds[0][0].ensemble.members
    assert (member.model, companion.model, outcome.sampling_method) == ("", "small", "ensemble-sampling")
    assert outcome.trace.candidates[0].settings.ensemble == ("fake", "small")


async def test_other_models_vote_over_finished_texts():
    answers = {"other": "Paris.", "": "London"}
    asker = Scripted(lambda w, n: answers[w.model] if not w.ensemble else "paris", about_=TWO)
    models = ["default", "other", "small"]
    outcome = await run(policy(sampling={"ensemble_models": models, "voting": "texts"}), asker)
    assert [w.model for w in asker.rounds[0]] == ["", "other", ""]
    assert [(m.model, m.weight) for m in asker.rounds[0][2].ensemble.members] == [("", 0.0), ("small", 1.0)]
    assert (outcome.output, [c.votes for c in outcome.trace.candidates]) == ("Paris.", [1, 2, 2])
    majority = await run(policy(sampling={"ensemble_models": ["default", "other"]}), Scripted(about_=TWO))
    assert [c.votes for c in majority.trace.candidates] == [2, 2]


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ({"sampling": {"ensemble_models": ["nobody"]}}, "unknown_ensemble_model"),
        ({"sampling": {"ensemble_models": ["default", "other"], "voting": "product"}}, "ensemble_apart"),
        (
            {
                "sampling": {"ensemble_models": ["default", "other"]},
                "steering": {"enabled": True, "vector": {"1": [1.0]}},
            },
            "steering_apart",
        ),
        ({"sampling": {"method": "ssd", "draft_model": "nobody"}}, "unknown_draft_model"),
        ({"model": {"model": "another"}}, "model_mismatch"),
    ],
)
async def test_models_that_are_not_here_are_refused(parts, code):
    with pytest.raises(InvalidRequest) as refused:
        await run(policy(**parts), Scripted(about_=TWO))
    assert refused.value.code == code


async def test_drafts_are_named_or_looked_up():
    for sampling, model in (({}, ""), ({"draft_model": "small"}, "small"), ({"draft_model": "default"}, "small")):
        asker = Scripted(about_=TWO)
        outcome = await run(policy(sampling={"method": "ssd", "speculative_steps": 6, **sampling}), asker)
        assert (asker.rounds[0][0].draft.model, asker.rounds[0][0].draft.tokens) == (model, 6)
        assert outcome.sampling_method == "speculative-decoding"


async def test_steering_is_scoped_to_layers_and_tokens():
    asker = Scripted()
    part = {"enabled": True, "vector": {"3": [1.0, 0.0], "4": [0.0, 1.0]}, "strength": 2.0}
    scope = {"layer_scope": [4], "token_start": 2, "token_end": 9}
    outcome = await run(policy(steering={**part, **scope}), asker)
    (edit,) = asker.rounds[0][0].interventions
    assert ([d.site.layer for d in edit.directions], edit.strength) == ([4], 2.0)
    assert (edit.positions.start, edit.positions.stop) == (2, 9)
    described = outcome.trace.steering[0]["directions"][0]
    assert described["norm"] == 1.0
    assert "values" not in described
    asker = Scripted()
    await run(policy(steering={**part, "enabled": False}), asker)
    assert asker.rounds[0][0].interventions == ()
    stored = {"enabled": True, "vector_id": "abc", "layer_scope": [5]}
    await run(policy(steering=stored), asker)
    assert asker.rounds[1][0].interventions[0].layers == (5,)


# ---- budgets ----


async def test_a_token_budget_is_shared_out_and_kept():
    asker = Scripted(["bad " * 50])
    wanted = forbid("bad", objective={"token_budget": 100}, optimization={"best_of_n": 4, "retry_on_failure": 3})
    outcome = await run(wanted, asker, max_new_tokens=30)
    assert [w.sampling.max_tokens for w in asker.rounds[0]] == [25] * 4
    assert (outcome.spent_tokens, len(asker.rounds), outcome.trace.spent.over) == (100, 1, "tokens")
    assert outcome.trace.candidates[0].cut == "tokens"


async def test_a_retry_has_as_many_candidates_as_the_budget_can_finish():
    asker = Scripted(["bad " * 10])
    wanted = forbid("bad", objective={"token_budget": 95}, optimization={"best_of_n": 4, "retry_on_failure": 5})
    outcome = await run(wanted, asker, max_new_tokens=20)
    assert [[w.sampling.max_tokens for w in rows] for rows in asker.rounds] == [
        [20] * 4,
        [20] * 2,
        [20],
        [20],
        [15],
        [5],
    ]
    assert (outcome.spent_tokens, outcome.trace.spent.over) == (95, "tokens")


async def test_fewer_tokens_than_candidates():
    asker = Scripted(["some words"])
    await run(policy(objective={"token_budget": 2}, optimization={"best_of_n": 4}), asker)
    assert [w.sampling.max_tokens for w in asker.rounds[0]] == [1, 1]


async def test_when_the_time_is_up_the_best_so_far_is_the_answer():
    asker = Scripted(["bad end"], seconds=0.4)
    wanted = forbid("end", objective={"latency_budget_ms": 600}, optimization={"retry_on_failure": 5})
    begun = time.monotonic()
    outcome = await run(wanted, asker)
    assert time.monotonic() - begun < 3
    assert [c.cut for c in outcome.trace.candidates] == ["", "latency"]
    assert (outcome.output, outcome.trace.spent.over) == ("bad", "latency")


async def test_a_verifier_that_would_begin_late_does_not_look():
    asker = Scripted(["some answer"], seconds=0.3)
    wanted = policy(
        objective={"latency_budget_ms": 100},
        verifiers={"enabled": ["factuality"]},
        optimization={"retry_on_failure": 0},
    )
    outcome = await run(wanted, asker)
    assert (outcome.accepted, asker.judged) == (False, [])
    assert "the time was up" in outcome.reason
    again = await replay(outcome.trace, Scripted(["some answer"]))
    assert (again.output, again.accepted, again.reason) == ("some", False, outcome.reason)


async def test_a_budget_that_nothing_was_cut_by_is_not_named():
    asker = Scripted(["fine"], seconds=0.2)
    outcome = await run(policy(objective={"latency_budget_ms": 60_000, "token_budget": 1}), asker)
    assert (outcome.accepted, outcome.trace.spent.over, outcome.trace.candidates[0].cut) == (True, "", "")


async def test_a_judge_that_cannot_look_lets_nothing_pass():
    def too_long(question, answer):
        raise InvalidRequest("prompt_too_long", "The answer is too long to judge.")

    wanted = policy(verifiers={"enabled": ["factuality"]}, optimization={"retry_on_failure": 0})
    outcome = await run(wanted, Scripted(chances=too_long))
    assert (outcome.accepted, outcome.score) == (False, 1.0)
    assert outcome.reason == "verifier factuality: it could not look: The answer is too long to judge."


# ---- trace and replay ----


async def test_a_trace_travels_as_json_and_runs_again_to_the_same_texts():
    def say(wanted, n):
        return said(f"bad {wanted.sampling.seed}" if len(wanted.messages) == 1 else f"good {wanted.sampling.seed}",
                    logprob=-(wanted.sampling.seed % 97) / 97)  # fmt: skip

    wanted = forbid("bad", optimization={"best_of_n": 4}, steering={"enabled": True, "vector": {"2": [1.0]}})
    outcome = await run(wanted, Scripted(say))
    trace = Trace.from_wire(json.loads(json.dumps(outcome.trace.to_wire())))
    assert trace == outcome.trace
    again = await replay(trace, Scripted(say))
    assert again.output == outcome.output
    assert differences(trace, again.trace) == ()
    assert len(again.trace.candidates) == 8
    other = await replay(trace, Scripted(["else"]))
    assert len(differences(trace, other.trace)) == 9


async def test_a_trace_of_another_model_or_another_steering_is_not_run_again():
    wanted = policy(steering={"enabled": True, "preset": "calm"})
    trace = (await run(wanted, Scripted())).trace
    with pytest.raises(InvalidRequest, match="Load that one"):
        await replay(trace, Scripted(about_=About("fake", "2")))
    changed = Scripted()
    changed.steering = lambda part: Scripted().steering(type(part)(strength=3.0, preset="calm"))
    with pytest.raises(InvalidRequest, match="changed since"):
        await replay(trace, changed)


async def test_the_answer_has_the_shape_that_clients_read():
    outcome = await run(policy(id="p1"), Scripted(), include_trace=False)
    data = outcome.to_wire()
    facts = {"output": "fine", "accepted": True, "policy_id": "p1", "score": 1.0, "tokens": 1}
    assert data | facts | {"constraints_ok": True, "verifier_ok": True} == data
    assert data["trace"] is None
    assert isinstance(data["latency_ms"], int)
    full = (await run(policy(), Scripted())).to_wire()["trace"]
    seeds = {"output", "accepted", "score", "latency_ms", "tokens", "constraints_ok", "verifier_ok", "reason",
             "sampling_method", "round", "slot"}  # fmt: skip
    assert seeds <= full["candidates"][0].keys()
    assert {"policy_name", "candidates", "retry_events", "selection"} <= full.keys()


@pytest.mark.parametrize(("prompt", "tokens"), [("", 5), ((), 5), ("x", 0), ("x", 10**6)])
async def test_a_call_without_sense_is_refused(prompt, tokens):
    with pytest.raises(InvalidRequest):
        await run(policy(), Scripted(), prompt=prompt, max_new_tokens=tokens)
