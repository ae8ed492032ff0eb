"""Policies over a real engine with a tiny model: rows of one batch, pruning, deadlines, and traces that run again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from inference.errors import InvalidRequest
from inference.layered import TrainLayers, layered_vector
from inference.policies.asking import Prune, Wanted, client_asker
from inference.policies.clientasker import ClientAsker
from inference.policies.replaying import differences, replay
from inference.policies.runner import run_policy
from inference.policies.schema import Policy, SteeringPart
from inference.policies.trace import Outcome, Trace
from inference.store import load
from inference.studio import Studio
from inference.types import Finished, GenerationRequest, Message, Pair, SamplingParams, Token
from tests.inference import tiny
from tests.waiting import auntil

PAIRS = [(f"A calm reply {n}.", f"An angry letter {n}!", "Question:") for n in range(6)]
PROMPT = "The quick brown fox"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A tiny model with room for a repair: an answer, what was wrong with it, and the answer again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny.SHAPE, "max_position_embeddings", 1024)
        folder = tiny.save("llama", tmp_path_factory.mktemp("data") / "roomy")
        companion = tiny.save("llama", tmp_path_factory.mktemp("data") / "second", seed=1)
        patch.setenv("STEERBOARD_COMPANIONS", str(companion))
        made = Studio(str(folder), data_dir=tmp_path_factory.mktemp("policies"), dtype="float64")
    with made:
        yield made


@pytest.fixture(scope="module")
def vector_id(studio: Studio) -> str:
    return studio.train(PAIRS, layers=[1, 2]).id


def on(studio: Studio, work):
    """Runs a coroutine where the studio's client lives."""
    return asyncio.run_coroutine_threadsafe(work, studio._loop).result(120)


def again(studio: Studio, outcome: Outcome) -> Outcome:
    """From the trace as JSON."""
    return studio.replay(json.loads(json.dumps(outcome.trace.to_wire())))


def test_candidates_are_rows_of_one_batch(studio: Studio) -> None:
    """While one of them is read no other has ended, and the engine takes fewer passes than four one after another."""
    before = studio._run(studio._client.describe()).rows
    most = 0

    async def watched() -> Outcome:
        nonlocal most
        policy = Policy.parse({"optimization": {"best_of_n": 4}, "sampling": {"temperature": 1.5, "top_k": 0}})
        running = asyncio.ensure_future(run_policy(policy, PROMPT, studio.asker(), max_new_tokens=60, seed=1))
        while not running.done():
            most = max(most, (await studio._client.describe()).rows)
            await asyncio.sleep(0.001)
        return await running

    outcome = on(studio, watched())
    texts = [c.output for c in outcome.trace.candidates]
    assert (before, most) == (0, 4)
    assert len(set(texts)) == 4
    (round_,) = outcome.trace.rounds
    assert round_.candidates == 4
    assert outcome.output == max(outcome.trace.candidates, key=lambda c: c.mean_logprob).output


def test_a_candidate_is_what_its_seed_writes_alone(studio: Studio) -> None:
    outcome = studio.run_policy({"optimization": {"best_of_n": 3}}, PROMPT, max_new_tokens=12, seed=4)
    for candidate in outcome.trace.candidates:
        params = {"temperature": 0.7, "top_k": 50, "seed": candidate.seed, "max_tokens": 12}
        assert studio.generate(PROMPT, **params).text == candidate.output


SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["calm", "angry"]}},
    "required": ["mood"],
    "additionalProperties": False,
}


def test_json_steering_best_of_four_and_a_retry_run_again_to_the_same_text(studio: Studio, vector_id: str) -> None:
    """Whatever is written holds a term that is forbidden, so that there is a repair."""
    policy = {
        "name": "calm and counted",
        "sampling": {"method": "guided-generation", "temperature": 1.0},
        "steering": {"enabled": True, "vector_id": vector_id, "strength": 2.0, "layer_scope": [2]},
        "constraints": {"json_schema": SCHEMA, "forbidden_terms": ["calm", "angry"]},
        "verifiers": {"enabled": ["syntax", "json_schema"]},
        "optimization": {"best_of_n": 4, "retry_on_failure": 1},
    }
    outcome = studio.run_policy(policy, PROMPT, max_new_tokens=200, seed=11)
    trace = outcome.trace
    assert [(r.kind, r.candidates) for r in trace.rounds] == [("first", 4), ("repair", 4)]
    assert len(trace.candidates) == 8
    for c in trace.candidates:
        assert json.loads(c.output)["mood"] in ("calm", "angry")
        assert (c.constraint.kind, c.constraint.complete, c.finish_reason) == ("json_schema", True, "stop")
        assert [(v.name, v.passed) for v in c.verdicts] == [("syntax", True), ("json_schema", True)]
        assert [(x.name, x.passed, x.enforced) for x in c.checks] == [
            ("json_schema", True, True), ("forbidden_terms", False, False),
        ]  # fmt: skip
        assert (c.applied[0].hook_name, c.applied[0].strength) == ("blocks.2.hook_resid_post", 2.0)
        assert c.applied[0].generated_tokens > 0
    assert trace.retry_events[0].trigger == "accepted=false"
    assert "forbidden_terms: it may not contain" in trace.rounds[1].told[1].content
    assert trace.steering[0]["vector_id"] == vector_id
    repeated = again(studio, outcome)
    assert differences(trace, repeated.trace) == ()
    assert (repeated.output, repeated.score, repeated.seed) == (outcome.output, outcome.score, 11)
    assert [c.tokens for c in repeated.trace.candidates] == [c.tokens for c in trace.candidates]
    assert [c.seed for c in repeated.trace.candidates] == [c.seed for c in trace.candidates]
    other = studio.run_policy(policy, PROMPT, max_new_tokens=200, seed=12)
    assert differences(trace, other.trace)


def test_a_retry_that_helps_is_the_answer(studio: Studio) -> None:
    """What is written is for the seed to say: the first of these whose first round fails and whose retry does not."""
    wanted = {"constraints": {"regex_pattern": "calm|angry", "forbidden_terms": ["calm"]}}
    wanted["sampling"] = {"temperature": 5.0}
    for seed in range(40):
        outcome = studio.run_policy(wanted, PROMPT, max_new_tokens=10, seed=seed)
        if outcome.accepted and len(outcome.trace.rounds) == 2:
            break
    assert (outcome.trace.selection.round, outcome.output) == (1, "angry")
    assert again(studio, outcome).output == outcome.output


def test_messages_are_repaired_through_the_chat_template(studio: Studio) -> None:
    constraints = {"forbidden_terms": ["e", "a", "o", "t", " "]}
    messages = [{"role": "user", "content": "Hello"}]
    outcome = studio.run_policy({"constraints": constraints}, messages, max_new_tokens=6, seed=2)
    first, second = outcome.trace.candidates
    assert second.prompt_tokens > first.prompt_tokens + first.tokens
    assert differences(outcome.trace, again(studio, outcome).trace) == ()


def test_the_less_likely_half_ends_when_half_is_written(studio: Studio) -> None:
    policy = {"sampling": {"temperature": 1.5, "top_k": 0}, "optimization": {"best_of_n": 4, "branch_and_prune": True}}
    outcome = studio.run_policy(policy, PROMPT, max_new_tokens=40, seed=3)
    cut = [c for c in outcome.trace.candidates if c.cut == "pruned"]
    assert len(cut) == 2
    assert all(c.tokens < 40 for c in cut)
    whole = on(studio, first_halves(studio, 3, 20))
    order = sorted(range(4), key=lambda slot: whole[slot], reverse=True)
    assert {c.slot for c in cut} == set(order[2:])
    assert outcome.trace.selection.cut == ""
    assert differences(outcome.trace, again(studio, outcome).trace) == ()


async def first_halves(studio: Studio, seed: int, after: int) -> list[float]:
    """Mean log-probability of the first tokens of four candidates, each written alone."""
    from inference.policies.settings import derived_seed

    found = []
    for slot in range(4):
        params = SamplingParams(after, 1.5, seed=derived_seed(seed, 0, slot), logprobs=True)
        request = GenerationRequest(f"half-{slot}", prompt=PROMPT, sampling=params)
        values = [e.logprob async for e in studio._client.generate(request) if isinstance(e, Token)]
        found.append(sum(values) / len(values))
    return found


def endless(tokens: int) -> Wanted:
    return Wanted(SamplingParams(max_tokens=tokens, seed=1, ignore_eos=True, logprobs=True), prompt=PROMPT)


class Slow:
    """A client whose tokens come slowly, whatever the machine."""

    def __init__(self, client, seconds: float):
        self._client, self._seconds, self.cancelled = client, seconds, []

    def __getattr__(self, name: str):
        return getattr(self._client, name)

    async def cancel(self, id: str) -> None:
        self.cancelled.append(id)
        await self._client.cancel(id)

    async def generate(self, request):
        async for event in self._client.generate(request):
            if isinstance(event, Token):
                await asyncio.sleep(self._seconds)
            yield event
            if isinstance(event, Token) and request.id in self.cancelled:
                await asyncio.sleep(10)


def test_a_latency_budget_is_kept_and_the_cut_run_runs_again(studio: Studio) -> None:
    policy = Policy.parse({"objective": {"latency_budget_ms": 700}, "optimization": {"best_of_n": 2}})
    slow = Slow(studio._client, 0.05)
    begun = time.monotonic()
    outcome = on(studio, run_policy(policy, PROMPT, client_asker(slow), max_new_tokens=100, seed=5))
    assert 0.6 < time.monotonic() - begun < 5
    assert {c.cut for c in outcome.trace.candidates} == {"latency"}
    assert len(slow.cancelled) == 2
    assert all(0 <= c.tokens < 100 for c in outcome.trace.candidates)
    assert outcome.trace.spent.over == "latency"
    repeated = again(studio, outcome)
    assert differences(outcome.trace, repeated.trace) == ()
    assert {c.cut for c in repeated.trace.candidates} == {"latency"}
    assert on(studio, all_have_left(studio))


async def all_have_left(studio: Studio) -> bool:
    async def left() -> bool:
        return not (await studio._client.describe()).rows

    return await auntil(left)


def test_a_row_that_is_refused_takes_the_round_with_it(studio: Studio) -> None:
    wanted = [endless(20), Wanted(SamplingParams(max_tokens=5), prompt=PROMPT, model="nobody")]
    with pytest.raises(Exception, match="nobody"):
        on(studio, studio.asker().complete(wanted))
    assert on(studio, all_have_left(studio))


def test_pruning_counts_what_has_ended(studio: Studio) -> None:
    asker = studio.asker()
    found = on(studio, asker.complete([endless(4), endless(60)], prune=Prune(8, 1)))
    assert found[0].cut == "" or found[0].completion_tokens == 4
    assert found[0].reason == "length"


def test_the_judge_gives_a_chance_for_each_answer(studio: Studio) -> None:
    found = on(studio, studio.asker().judge("What is it?", ["A fox.", "A cat."]))
    assert len(found) == 2
    assert all(0 <= chance <= 1 for chance in found)
    nothing = on(studio, studio.asker().judge("What is it?", ["N/A"]))
    assert nothing == [pytest.approx(0.5)]
    outcome = studio.run_policy({"verifiers": {"enabled": ["factuality"]}}, PROMPT, max_new_tokens=8, seed=1)
    assert outcome.trace.candidates[0].verdicts[0].name == "factuality"


def test_a_vector_by_its_id_acts_where_it_recommends(studio: Studio, vector_id: str) -> None:
    (edit,) = on(studio, studio.asker().steering(SteeringPart(enabled=True, vector_id=vector_id, strength=1.5)))
    assert (edit.vector_id, edit.unit, edit.strength) == (vector_id, "relative", 1.5)


@pytest.mark.parametrize("operation", ["add", "clamp", "affine"])
def test_a_vector_does_what_it_was_trained_for(studio: Studio, vector_id: str, operation: str) -> None:
    plain = load(on(studio, studio.client.get_vector(vector_id)))
    trained = studio.keep(replace(plain, id="", provenance={"apply": {"operation": operation}}))
    (edit,) = on(studio, studio.asker().steering(SteeringPart(enabled=True, vector_id=trained.id)))
    assert edit.operation == operation


def test_a_vector_of_perceptrons_acts_as_their_map(studio: Studio) -> None:
    pairs = tuple(Pair(*pair) for pair in PAIRS)

    async def made() -> str:
        job = TrainLayers("perceptrons", pairs, "steering_perceptrons", (1,))
        return [event async for event in layered_vector(studio.client, job)][-1].payload["vector"]["id"]

    (edit,) = on(studio, studio.asker().steering(SteeringPart(enabled=True, vector_id=on(studio, made()))))
    assert edit.operation == "affine"
    with pytest.raises(InvalidRequest, match="kept by a Steerboard server"):
        studio.run_policy({"steering": {"enabled": True, "preset": "brevity"}}, PROMPT)


def test_directions_in_the_policy_act_raw(studio: Studio) -> None:
    part = {"enabled": True, "vector": {"1": [0.5] * 32}, "strength": 3.0, "token_start": 1}
    outcome = studio.run_policy({"steering": part}, PROMPT, max_new_tokens=6, seed=1)
    (applied,) = outcome.trace.selection.applied
    assert (applied.hook_name, applied.unit, applied.strength) == ("blocks.1.hook_resid_post", "raw", 3.0)
    assert applied.prompt_tokens + 1 == outcome.trace.selection.prompt_tokens
    assert applied.mean_dose == pytest.approx(3.0 * (0.25 * 32) ** 0.5, rel=1e-3)


def test_a_trace_says_which_model_wrote_it(studio: Studio) -> None:
    outcome = studio.run_policy({}, PROMPT, max_new_tokens=4, seed=1)
    assert (outcome.trace.model, outcome.trace.revision) == (studio.model.id, studio.model.revision)
    forged = Trace.from_wire({**outcome.trace.to_wire(), "revision": "other"})
    with pytest.raises(InvalidRequest, match="Load that one"):
        studio.replay(forged)


def test_a_client_that_is_busy_is_asked_again(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    from inference.errors import Busy
    from inference.policies import clientasker

    monkeypatch.setattr(clientasker, "BUSY_SECONDS", 0.01)
    tries = []

    class Full(Slow):
        async def generate(self, request):
            tries.append(request.id)
            if len(tries) < 3:
                raise Busy("full", "The waiting list is full.")
            async for event in self._client.generate(request):
                yield event

    asker = ClientAsker(Full(studio._client, 0.0))
    (found,) = on(studio, asker.complete([endless(3)]))
    assert (len(tries), found.completion_tokens) == (3, 3)


def test_messages_and_texts_are_both_prompts(studio: Studio) -> None:
    asker = studio.asker()
    policy = Policy.parse({"sampling": {"method": "greedy"}})
    chat = on(studio, run_policy(policy, (Message("user", "Hi"),), asker, max_new_tokens=4, seed=0))
    text = on(studio, run_policy(policy, "Hi", asker, max_new_tokens=4, seed=0))
    assert chat.trace.messages == (Message("user", "Hi"),)
    assert (chat.trace.prompt, text.trace.prompt) == (None, "Hi")
    assert chat.output != text.output
    on(studio, replay(chat.trace, asker))


def test_events_of_a_generation_end_with_its_receipt(studio: Studio) -> None:
    """What the asker relies on: one Token per token, and a Finished that counts them."""

    async def events():
        request = GenerationRequest("one", prompt=PROMPT, sampling=SamplingParams(max_tokens=5, ignore_eos=True))
        return [e async for e in studio._client.generate(request)]

    found = on(studio, events())
    assert sum(isinstance(e, Token) for e in found) == 5
    assert isinstance(found[-1], Finished)
    assert found[-1].usage.completion_tokens == 5


# ---- what methods there are ----


def test_beams_are_candidates_and_the_best_is_hugging_faces(studio: Studio) -> None:
    policy = {"sampling": {"method": "constrained-beam-search", "beam_width": 4}, "optimization": {"best_of_n": 3}}
    outcome = studio.run_policy(policy, PROMPT, max_new_tokens=8, seed=1)
    alone = studio.generate(PROMPT, max_tokens=8, temperature=0.0, beam_width=4)
    assert outcome.output == alone.text
    assert [c.output for c in outcome.trace.candidates] == [beam.text for beam in alone.receipt.beams[:3]]
    assert [c.slot for c in outcome.trace.candidates] == [0, 1, 2]
    assert differences(outcome.trace, again(studio, outcome).trace) == ()


@pytest.mark.parametrize("draft", [{}, {"draft_model": "second"}])
def test_drafts_write_what_is_written_without_them(studio: Studio, draft: dict) -> None:
    sampling = {"temperature": 0.9, "top_k": 0}
    plain = studio.run_policy(
        {"sampling": {"method": "ads", **sampling, "ads_subset_size": 16}}, PROMPT, max_new_tokens=4, seed=3
    )
    assert plain.sampling_method == "ads"
    policy = {"sampling": {"method": "ssd", "top_k": 40, "speculative_steps": 3, **draft}}
    outcome = studio.run_policy(policy, PROMPT, max_new_tokens=24, seed=3)
    applied = outcome.trace.candidates[0].draft
    assert (applied.model, applied.passes > 0) == (draft.get("draft_model", ""), True)
    params = {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "seed": outcome.trace.candidates[0].seed}
    assert outcome.output == studio.generate(PROMPT, max_tokens=24, **params).text


@pytest.mark.parametrize("voting", ["majority", "product"])
def test_an_ensemble_answers_token_by_token(studio: Studio, vector_id: str, voting: str) -> None:
    sampling = {"ensemble_models": ["default", "second"], "voting": voting}
    steering = {"enabled": True, "vector_id": vector_id}
    outcome = studio.run_policy({"sampling": sampling, "steering": steering}, PROMPT, max_new_tokens=12, seed=1)
    members = outcome.trace.candidates[0].members
    assert [m.model for m in members] == ["", "second"]
    assert members[0].applied and not members[1].applied
    assert outcome.trace.candidates[0].settings.combine == ("product" if voting == "product" else "mixture")
    assert differences(outcome.trace, again(studio, outcome).trace) == ()


def test_companions_vote_each_for_itself(studio: Studio) -> None:
    sampling = {"ensemble_models": ["default", "second", "default"], "voting": "texts", "temperature": 0.0}
    outcome = studio.run_policy({"sampling": sampling}, PROMPT, max_new_tokens=8, seed=1)
    one, other, two = outcome.trace.candidates
    assert one.output == two.output != other.output
    assert [c.votes for c in outcome.trace.candidates] == [2, 1, 2]
    assert [c.settings.model for c in outcome.trace.candidates] == [studio.model.id, "second", studio.model.id]
    assert outcome.output == one.output


def _routed(studio: Studio, **sampling: object) -> Outcome:
    from inference.policies.builders import fast_tool_router

    policy = fast_tool_router().to_wire()
    policy["objective"]["latency_budget_ms"] = None
    policy["sampling"] |= sampling
    at = {"type": "object", "properties": {"at": {"enum": ["sky"]}}, "required": ["at"], "additionalProperties": False}
    policy["constraints"]["tool_schema"] = {"name": "look", "parameters": at}
    outcome = studio.run_policy(policy, PROMPT, max_new_tokens=200, seed=1)
    assert outcome.accepted, outcome.reason
    assert json.loads(outcome.output)["tool_name"] == "look"
    return outcome


def test_a_call_is_drafted_within_its_constraint(studio: Studio) -> None:
    outcome = _routed(studio)
    assert [r.kind for r in outcome.trace.rounds] == ["first"]
    assert outcome.sampling_method == "speculative-decoding"
    assert outcome.trace.candidates[0].draft.passes > 0


def test_a_draft_model_that_is_not_at_hand_gives_way_to_the_fallback(studio: Studio) -> None:
    outcome = _routed(studio, draft_model="nowhere")
    first, second = outcome.trace.rounds[0], outcome.trace.rounds[-1]
    assert "nowhere" in first.refused
    assert (second.kind, outcome.sampling_method) == ("fallback", "top-k")
