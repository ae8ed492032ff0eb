"""A draft saves passes and changes nothing: tokens, log-probabilities, scores and receipts are those without one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy import stats

from inference import drafts
from inference.batch import Batch, Row
from inference.compiling import edits_of
from inference.drafts import RowDraft, Seen
from inference.engine import Engine
from inference.errors import InvalidRequest, NotFound
from inference.models.loader import load
from inference.sampling import row_state
from inference.types import Constraint, Draft, Ensemble, Fired, Member, SamplingParams, Scored, Token, Watch
from tests.inference import tiny
from tests.inference.conftest import CACHE
from tests.inference.driver import add, alone, request, start, together
from tests.inference.test_isolation import D, mixed_requests, neighbours
from tests.inference.test_watches import EVERY, no_vectors, probe

LOOK_UP = Draft(tokens=4, ngram=2)
LEVEL = 1e-4  # of the tests of distributions: a right one is called wrong once in 10,000 runs; seeds are fixed
EDITED = neighbours()


@pytest.fixture
def drafting(make_engine: Callable[..., Engine], tmp_path: Path) -> Callable[..., Engine]:
    """An engine with two companions: `same`, with its own weights, and `other`, with others of the same kind."""

    def make(family: str = "llama", **limits: int) -> Engine:
        same, other = tiny.save(family, tmp_path / "same"), tiny.save("qwen3", tmp_path / "other", seed=5)
        return make_engine(family, companions=(str(same), str(other)), **limits)

    return make


# ---- looking up ----


def looked_up(tokens: list[int], ngram: int, count: int) -> list[int]:
    """As `Seen.guess`, by looking everywhere."""
    for n in range(min(ngram, len(tokens)), 0, -1):
        for start_at in range(len(tokens) - n - 1, -1, -1):
            if tokens[start_at : start_at + n] == tokens[-n:]:
                grown = list(tokens)
                for i in range(count):
                    grown.append(grown[start_at + n + i])
                return grown[len(tokens) :]
    return []


def test_a_guess_is_what_followed_the_longest_end_the_last_time():
    assert Seen(3).guess([1, 2, 3, 9, 1, 2, 3, 8, 7, 5, 2, 3], 2) == [8, 7]
    assert Seen(1).guess([1, 2, 3, 9, 1, 2, 3, 8, 7, 5, 1], 3) == [2, 3, 8]
    assert Seen(2).guess([4, 5, 6], 3) == []
    assert Seen(3).guess([7, 1, 1, 1], 4) == [1, 1, 1, 1], "a loop goes round"


def test_a_guess_is_found_as_by_looking_everywhere_while_the_answer_grows():
    rng = random.Random(3)
    for ngram in (1, 2, 4):
        seen, tokens = Seen(ngram), [rng.randrange(4)]
        for _ in range(120):
            assert seen.guess(tokens, 5) == looked_up(tokens, ngram, 5)
            tokens += [rng.randrange(4) for _ in range(rng.randrange(1, 4))]


# ---- the same tokens ----


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_oss"])
def test_rows_write_what_they_write_without_a_draft(drafting, family):
    """Steered, gated, scheduled, penalised, sampled and greedy; alone, in company, among rows without drafts."""
    engine = drafting(family, prefill_tokens=16)
    requests = mixed_requests(8)
    plain = [alone(engine, r) for r in requests]
    kinds = (LOOK_UP, Draft("same", tokens=5), None, Draft("other", tokens=3))
    drafted = [replace(r, draft=kinds[i % 4]) for i, r in enumerate(requests)]
    assert [alone(engine, r) for r in drafted] == plain
    assert together(engine, drafted) == plain
    looked = [replace(r, draft=LOOK_UP) for r in requests]
    assert together(engine, looked) == plain


@pytest.mark.parametrize(
    "draft", [LOOK_UP, Draft("same", tokens=6), Draft("other", tokens=6)], ids=["", "same", "other"]
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_receipt_says_what_became_of_the_guesses(drafting, draft, temperature):
    engine = drafting()
    asked = request("a", [10, 11, 12, 13] * 5, max_tokens=40, temperature=temperature, seed=3)
    plain = start(engine, asked).wait()
    done = start(engine, replace(asked, draft=draft)).wait()
    told = done.finished.receipt.draft
    assert done.tokens == plain.tokens and plain.finished.receipt.draft is None
    assert told.model == draft.model and 0 <= told.accepted <= told.proposed
    assert told.passes + told.accepted >= 39 - 1 and told.passes <= 39
    if draft.model == "same":
        assert told.accepted == told.proposed >= 30, "a companion with the same weights is always right"
        assert told.passes <= 8
    if draft.model == "other":
        assert told.accepted < told.proposed


def test_guesses_stop_where_the_answer_must(drafting):
    engine = drafting()
    done = start(engine, replace(request("a", range(10, 20), max_tokens=7), draft=Draft("same", tokens=16))).wait()
    assert len(done.tokens) == done.finished.usage.completion_tokens == 7
    assert done.finished.reason == "length"
    assert done.finished.receipt.draft.proposed == 5, "one comes with the prompt, one more with the pass"


Told = list[tuple[object, list[float]]]


def events_of(engine: Engine, asked) -> Told:
    return told_by(start(engine, asked).wait().events)


def told_by(found: list) -> Told:
    """What was told: facts, and numbers that are as exact as sums are. Not the draft's own part of the receipt."""
    told: Told = []
    for event in found[1:-1]:
        if isinstance(event, Token):
            facts = event.seq, event.token_id, event.text, event.token, event.raw, [a.token for a in event.top]
            told.append((facts, [event.logprob or 0.0, *(a.logprob for a in event.top)]))
        elif isinstance(event, Scored):
            told.append(((event.seq, event.start), [value or 0.0 for values in event.values for value in values]))
        elif isinstance(event, Fired):
            firings = [(f.name, f.position, f.token_id, f.action) for f in event.firings]
            told.append((firings, [f.score for f in event.firings]))
    end = found[-1]
    receipt = end.receipt
    about = end.reason, end.text, end.usage, end.seq, receipt.seed, receipt.fired_total, receipt.constraint
    told.append((about, []))
    for applied in receipt.applied:
        condition = applied.condition
        facts = applied.prompt_tokens, applied.generated_tokens, condition and condition.held_tokens
        numbers = [applied.mean_dose, applied.projection_before, applied.projection_after]
        told.append((facts, [*numbers, (condition and condition.value) or 0.0]))
    return told


def agree(told: Told, plain: Told) -> bool:
    assert [facts for facts, _ in told] == [facts for facts, _ in plain]
    for (_, numbers), (_, others) in zip(told, plain, strict=True):
        assert numbers == pytest.approx(others, rel=1e-8, abs=1e-8)
    return True


def endings() -> dict[str, dict]:
    return {
        "length": {"max_tokens": 25, "seed": 1},
        "eos": {"max_tokens": 100, "ignore_eos": False, "logit_bias": {1: 5.0}, "temperature": 0.9, "seed": 4},
        "stop": {"max_tokens": 60, "temperature": 0.9, "seed": 4},
        "penalties": {
            "max_tokens": 25,
            "frequency_penalty": 0.7,
            "repetition_penalty": 1.3,
            "temperature": 0.8,
            "seed": 2,
        },
        "logprobs": {"max_tokens": 25, "logprobs": True, "top_logprobs": 3, "seed": 1},
    }


@pytest.mark.parametrize("ending", endings())
@pytest.mark.parametrize("draft", [LOOK_UP, Draft("same", tokens=7)], ids=["", "same"])
def test_every_event_and_the_receipt_are_those_without_a_draft(drafting, ending, draft):
    engine = drafting()
    ids = [10, 11, 12, 13] * 5
    settings = endings()[ending]
    if ending == "stop":
        text = start(engine, request("t", ids, interventions=EDITED, **settings)).wait().text
        settings["stop"] = (text[40:43],)
    asked = request("a", ids, interventions=EDITED, **settings)
    plain = events_of(engine, asked)
    assert agree(events_of(engine, replace(asked, draft=draft)), plain)
    if ending in ("eos", "stop"):
        assert any(isinstance(facts, tuple) and facts[0] == "stop" for facts, _ in plain)


@pytest.mark.parametrize(
    ("constraint", "more"),
    [
        (Constraint("regex", "(ab|cd|e){8,30}!"), {"max_tokens": 100}),
        (Constraint("regex", "(ab|cd|e){8,30}!"), {"max_tokens": 9, "logprobs": True, "top_logprobs": 2}),
        (Constraint("regex", "[a-c]{12}"), {"max_tokens": 100, "temperature": 1.0, "seed": 5}),
        (
            Constraint("json_schema", '{"type":"array","items":{"enum":["aa","ab"]},"minItems":4,"maxItems":6}'),
            {"max_tokens": 30},
        ),
    ],
)
def test_constrained_rows_draft_too(drafting, constraint, more):
    engine = drafting()
    sampling = {"max_tokens": 90, "ignore_eos": False, "seed": 1, **more}
    asked = replace(request("a", [10, 11, 12, 13] * 5, **sampling), constraint=constraint, interventions=EDITED[:2])
    plain = events_of(engine, asked)
    for draft in (LOOK_UP, Draft("same", tokens=7), Draft("other", tokens=3)):
        done = start(engine, replace(asked, draft=draft)).wait()
        assert agree(told_by(done.events), plain)
        assert done.finished.receipt.constraint is not None
        assert draft == LOOK_UP or done.finished.receipt.draft.proposed > 0


@pytest.mark.parametrize("action", ["observe", "steer", "stop"])
def test_watches_read_what_stands_and_nothing_else(drafting, action):
    engine = drafting()
    asked = request("a", [10, 11, 12, 13] * 5, max_tokens=40, temperature=1.0, seed=6, logprobs=True)
    values = [
        value
        for event in start(engine, replace(asked, watches=(Watch("w", probe(), positions=EVERY),))).wait().events
        if isinstance(event, Scored)
        for (value,) in event.values
    ]
    threshold = sorted(values[20:])[-4] - 1e-6  # some token of the answer, in its midst
    watch = Watch("w", probe(), None if action == "observe" else threshold, action, positions=EVERY)
    if action == "steer":
        watch = replace(watch, interventions=(add(D, 2, 9, 4.0),))
    asked = replace(asked, watches=(watch,), interventions=EDITED[:1])
    plain = events_of(engine, asked)
    for draft in (LOOK_UP, Draft("same", tokens=7), Draft("other", tokens=7)):
        assert agree(events_of(engine, replace(asked, draft=draft)), plain)
    if action == "stop":
        assert any(isinstance(facts, tuple) and facts[0] == "watch" for facts, _ in plain)


def test_rows_come_and_go_beside_drafting_rows(drafting):
    engine = drafting()
    ids = [10, 11, 12, 13] * 5
    plain = request("plain", range(30, 40), max_tokens=60, temperature=0.9, seed=1)
    looks = replace(request("looks", ids, max_tokens=60), draft=LOOK_UP)
    shadowed = replace(request("shadowed", range(50, 70), max_tokens=60, temperature=1.0, seed=8), draft=Draft("same"))
    expected = {r.id: alone(engine, replace(r, draft=None)) for r in (plain, looks, shadowed)}
    for victim in ("looks", "shadowed", "plain"):
        running = {r.id: start(engine, r) for r in (plain, looks, shadowed)}
        running[victim].wait_for_tokens(7)
        engine.cancel(victim)
        for id, listener in running.items():
            told = listener.wait().tokens
            assert told == expected[id][: len(told)]
            assert id == victim or told == expected[id]
    assert not engine.batch.rows and not any(s._like for s in engine.batch._drafts._shadows.values())


# ---- the native step ----


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lines_of_one_pass_are_the_steps_bit_for_bit(tiny_folder, family, dtype):
    """And so is what a neighbour without guesses gets."""
    model = load(str(tiny_folder(family)), cache_dir=CACHE, dtype=dtype, device="cpu")
    if model.decoder is None:
        pytest.skip("no C compiler here")
    ids, written = [7, 8, 9, 30] * 18, [40, 41, 42, 43, 44]

    def begun() -> Batch:
        batch = Batch(model)
        for tokens in (ids, ids[::-1]):
            state = row_state(SamplingParams(temperature=0.0), tokens, 0, model.vocab_size)
            row = Row(list(tokens), state, edits_of(tuple(EDITED), model, no_vectors))
            batch.join([row])
            batch.prefill(1000)
        return batch

    with torch.inference_mode():
        one = begun()
        bank = one._make_bank(one.rows, reading=False)
        places = list(range(len(ids), len(ids) + len(written)))
        steps = [
            one.read_lines(None, [token, 5], [place, len(ids)], bank)
            for token, place in zip(written, places, strict=True)
        ]
        two = begun()
        owners = [0, 1, 0, 0, 0, 0]
        tokens, at = [written[0], 5, *written[1:]], [places[0], len(ids), *places[1:]]
        lines = two.read_lines(owners, tokens, at, two._bank_of(owners))
    assert torch.equal(lines[1], steps[0][1])
    for line, step in zip(lines[[0, 2, 3, 4, 5]], steps, strict=True):
        assert torch.equal(line, step[0])


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_neighbours_draft_changes_no_bit_of_my_logits(tiny_folder, dtype):
    model = load(str(tiny_folder("llama")), cache_dir=CACHE, dtype=dtype, device="cpu")
    if dtype != "float64" and model.decoder is None:
        pytest.skip("no C compiler here")

    def logits(draft: RowDraft | None) -> torch.Tensor:
        seen = []

        class Watched(Batch):
            def _choose(self, rows, logits):
                seen.append(logits[-1].clone())
                return super()._choose(rows, logits)

        batch = Watched(model)
        made = []
        for ids, own in (([10, 11, 12, 13] * 5, draft), (list(range(40, 60)), None)):
            state = row_state(SamplingParams(temperature=0.0, max_tokens=50), ids, 0, model.vocab_size)
            made.append(Row(list(ids), state, edits_of(tuple(EDITED[:2]), model, no_vectors), draft=own))
        batch.join(made)
        batch.prefill(1000)
        for _ in range(12):
            batch.step()
        return torch.stack(seen)

    draft = RowDraft(LOOK_UP)
    if dtype == "float64":  # whose products are not packed: their last bits may depend on how many rows there are
        torch.testing.assert_close(logits(draft), logits(None), rtol=0, atol=1e-12)
    else:
        assert torch.equal(logits(draft), logits(None))
    assert draft.proposed > 0


# ---- the distribution ----


def written_by(
    model, draft: Callable[[], RowDraft | None], rows: int, params: dict, tokens: int
) -> list[tuple[int, ...]]:
    """Answers of many rows of one batch, each with a seed of its own."""
    batch = Batch(model)
    ids = [10, 11, 12, 13] * 3
    made = []
    for seed in range(rows):
        sampling = SamplingParams(max_tokens=tokens, ignore_eos=True, **params)
        made.append(Row(list(ids), row_state(sampling, ids, seed, model.vocab_size), draft=draft()))
    batch.join(made)
    while batch.prefilling:
        batch.prefill(10_000)
    while any(len(row.tokens) < len(ids) + tokens for row in made):
        for row in [r for r in batch.rows if len(r.tokens) >= len(ids) + tokens]:
            batch.drop(row)
        batch.step()
        while batch.take():
            pass
    return [tuple(row.tokens[len(ids) :]) for row in made], made


@pytest.mark.parametrize("companion", ["", "same", "other"])
def test_answers_are_distributed_as_the_models_own(tiny_folder, monkeypatch, companion):
    """Chi-square, at the level above, of the first three tokens of 1,500 answers against the model's own odds.

    A bias leaves it four tokens, so that guesses are often right.
    """
    monkeypatch.setattr(drafts, "LINES_CPU", 100_000)
    model, other = (
        load(str(tiny_folder(family)), cache_dir=CACHE, dtype="float64", device="cpu") for family in ("llama", "qwen3")
    )
    drafter = {"": None, "same": model, "other": other}[companion]
    few = [10, 11, 12, 13]
    params = {"temperature": 0.7, "logit_bias": dict.fromkeys(few, 50.0)}
    answers, rows = written_by(model, lambda: RowDraft(Draft(companion, 4, 1), drafter), 1500, params, 5)
    proposed, accepted = (sum(getattr(row.draft, name) for row in rows) for name in ("proposed", "accepted"))
    assert accepted == proposed > 0 if companion == "same" else 0.1 < accepted / proposed < 0.9
    odds: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        odds = {
            (*begun, token): chance * p
            for begun, chance in odds.items()
            for token, p in zip(few, odds_after(model, begun, few), strict=True)
        }
    seen = [sum(answer[:3] == key for answer in answers) for key in odds]
    assert sum(seen) == len(answers)
    rare = [p * len(answers) < 5 for p in odds.values()]  # too few for the test: counted together
    expected = [p * len(answers) for p, few_times in zip(odds.values(), rare, strict=True) if not few_times]
    counted = [n for n, few_times in zip(seen, rare, strict=True) if not few_times]
    if any(rare):
        expected.append(len(answers) - sum(expected))
        counted.append(len(answers) - sum(counted))
    assert len(expected) > 10
    assert stats.chisquare(counted, expected).pvalue > LEVEL


@torch.inference_mode()
def odds_after(model, begun: tuple[int, ...], few: list[int]) -> list[float]:
    full = torch.tensor([[10, 11, 12, 13] * 3 + list(begun)])
    return (model.hf(full, use_cache=False).logits[0, -1, few] / 0.7).softmax(-1).tolist()


# ---- what is refused ----


def with_draft(draft: Draft = LOOK_UP, **more):
    sampling = more.pop("sampling", {})
    return replace(request("a", range(10, 20), **sampling), draft=draft, **more)


def regenerating() -> Watch:
    return Watch("w", probe(), 1.0, "regenerate", positions=replace(EVERY, prompt=False))


@pytest.mark.parametrize(
    ("asked", "code", "cure"),
    [
        (with_draft(Draft(tokens=0)), "bad_draft", "4 is usual"),
        (with_draft(Draft(tokens=17)), "bad_draft", "4 is usual"),
        (with_draft(Draft(ngram=0)), "bad_draft", "3 is usual"),
        (with_draft(sampling={"beam_width": 2}), "draft_with_beams", "beam_width to 1"),
        (with_draft(ensemble=Ensemble((Member(), Member()))), "draft_with_ensemble", "Leave the draft out"),
        (
            with_draft(watches=(regenerating(),), sampling={"temperature": 1.0}),
            "draft_with_regenerate",
            "stop or steer",
        ),
    ],
)
def test_what_a_draft_cannot_follow_is_refused_with_a_cure(make_engine, asked, code, cure):
    with pytest.raises(InvalidRequest) as refused:
        make_engine().prepare(asked)
    assert refused.value.code == code and cure in refused.value.message


def test_a_model_that_is_no_companion_is_refused_by_name(drafting):
    engine = drafting()
    with pytest.raises(NotFound) as refused:
        engine.prepare(with_draft(Draft("stranger")))
    assert refused.value.code == "companion_not_found"
    assert "stranger" in refused.value.message and "same, other" in refused.value.message
