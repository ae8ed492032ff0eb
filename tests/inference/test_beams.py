"""Beam search equals Hugging Face's, token for token, on tiny random models in float64; beams keep to themselves."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from inference.constraints.row import RowConstraint
from inference.engine import Engine
from inference.errors import InvalidRequest
from inference.models.loader import load
from inference.store import VectorStore
from inference.types import (
    Condition,
    Constraint,
    Draft,
    Ensemble,
    Member,
    Positions,
    Probe,
    PromptRead,
    Schedule,
    Watch,
)
from tests.inference import tiny
from tests.inference.conftest import CACHE, wait_until_ready
from tests.inference.driver import add, alone, direction, request, start, together

D = 32


def prompt(seed: int, length: int = 11) -> list[int]:
    return torch.randint(5, tiny.VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def hugging_face(model, ids: list[int], width: int, tokens: int, *, eos: list[int] | None = None, hook=None, **more):
    """Answers and scores of `generate`, best first; `hook` steers block 1."""
    handle = model.layers[1].register_forward_hook(hook) if hook else None
    try:
        made = model.hf.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            max_new_tokens=tokens,
            num_beams=width,
            num_return_sequences=width,
            do_sample=False,
            early_stopping=False,
            eos_token_id=eos or -1,
            pad_token_id=2,
            return_dict_in_generate=True,
            output_scores=True,
            **more,
        )
    finally:
        if handle:
            handle.remove()
    lengths = (made.beam_indices >= 0).sum(-1).tolist()
    answers = [row[len(ids) : len(ids) + n].tolist() for row, n in zip(made.sequences, lengths, strict=True)]
    return answers, made.sequences_scores.tolist()


def ours(engine, ids, width, tokens, **more):
    done = start(engine, request("b", ids, max_tokens=tokens, beam_width=width, **more)).wait()
    return done.tokens, [beam.score for beam in done.finished.receipt.beams], done


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("width", [2, 5])
def test_the_answer_is_that_of_hugging_face(make_engine, family, width):
    engine = make_engine(family, prefill_tokens=8)
    for seed in range(2):
        ids = prompt(seed)
        expected, scores = hugging_face(engine.batch.model, ids, width, 14)
        tokens, own_scores, done = ours(engine, ids, width, 14)
        assert tokens == expected[0]
        assert own_scores == pytest.approx(scores, rel=1e-5)  # Hugging Face adds up in float32
        assert done.finished.reason == "length" and done.finished.usage.completion_tokens == 14


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 3.0, -1.0])
def test_answers_that_end_are_kept_as_hugging_face_keeps_them(make_engine, family, length_penalty):
    engine = make_engine(family)
    model = engine.batch.model
    for seed in range(3):
        ends = [int(t) for t in np.random.default_rng(seed).choice(np.arange(5, tiny.VOCAB), 12, replace=False)]
        model.eos_ids = frozenset(ends)
        ids = prompt(20 + seed)
        expected, scores = hugging_face(model, ids, 4, 20, eos=ends, length_penalty=length_penalty)
        tokens, own, done = ours(engine, ids, 4, 20, ignore_eos=False, length_penalty=length_penalty)
        assert tokens == expected[0]
        assert own == pytest.approx(scores, rel=1e-5)
        assert [beam.tokens for beam in done.finished.receipt.beams] == [len(answer) for answer in expected]
        assert done.finished.reason == ("stop" if tokens[-1] in ends else "length")


STEER = add(D, 1, seed=4, strength=2.0)


@pytest.mark.parametrize(("family", "strength"), [("llama", 2.0), ("gemma2", 30.0), ("gpt_neox", 2.0)])
def test_steered_beams_are_those_of_hugging_face_with_a_hook(make_engine, family, strength):
    def add_by_hand(module, args, output):
        values = torch.from_numpy(direction(D, 1, seed=4).values).to(torch.float64) * strength
        return (output[0] + values, *output[1:]) if isinstance(output, tuple) else output + values

    engine = make_engine(family)
    ids, ends = prompt(5), [7, 40, 90, 150, 222]
    engine.batch.model.eos_ids = frozenset(ends)
    expected, _ = hugging_face(engine.batch.model, ids, 4, 16, eos=ends, hook=add_by_hand)
    tokens, _, done = ours(engine, ids, 4, 16, ignore_eos=False, interventions=[replace(STEER, strength=strength)])
    assert tokens == expected[0]
    assert tokens != ours(engine, ids, 4, 16, ignore_eos=False)[0]
    (applied,) = done.finished.receipt.applied
    assert (applied.prompt_tokens, applied.generated_tokens) == (len(ids), len(tokens) - 1)


@pytest.mark.parametrize("settings", [{"repetition_penalty": 1.4}, {"logit_bias": {9: 6.0, 41: -8.0, 77: 4.0}}])
def test_penalties_and_bias_count_as_in_hugging_face(make_engine, settings):
    engine = make_engine()
    bias = settings.get("logit_bias")
    theirs = {"sequence_bias": {(token,): value for token, value in bias.items()}} if bias else settings
    differs = 0
    for seed in range(3):
        ids = prompt(seed)
        expected, scores = hugging_face(engine.batch.model, ids, 4, 14, **theirs)
        tokens, own, _ = ours(engine, ids, 4, 14, **settings)
        assert tokens == expected[0] and own == pytest.approx(scores, rel=1e-5)
        differs += tokens != ours(engine, ids, 4, 14)[0]
    assert differs


def test_one_beam_is_the_greedy_answer_and_more_are_likelier(make_engine):
    engine = make_engine()
    greedy = start(engine, request("g", prompt(1), max_tokens=12, logprobs=True)).wait()
    _, _, done = ours(engine, prompt(1), 8, 12)
    assert alone(engine, request("o", prompt(1), max_tokens=12, beam_width=1)) == greedy.tokens
    assert done.finished.receipt.beams[0].logprob > sum(e.logprob for e in greedy.events if hasattr(e, "logprob"))


def test_log_probabilities_are_the_models_own(make_engine):
    engine = make_engine()
    wanted = {"logprobs": True, "top_logprobs": 3}
    _, _, done = ours(engine, prompt(1), 4, 12, repetition_penalty=1.3, **wanted)
    forced = {"max_tokens": 0, "prompt_logprobs": True}
    read = start(engine, request("r", [*prompt(1), *done.tokens], **forced, **wanted)).wait()
    expected = [t for e in read.events if isinstance(e, PromptRead) for t in e.tokens][len(prompt(1)) :]
    told = [e for e in done.events if hasattr(e, "token_id")]
    assert [t.logprob for t in told] == pytest.approx([t.logprob for t in expected], abs=1e-9)
    assert [[a.token for a in t.top] for t in told] == [[a.token for a in t.top] for t in expected]
    assert done.finished.receipt.beams[0].logprob == pytest.approx(sum(t.logprob for t in told), abs=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_the_native_step_beams_stand_where_they_say(tiny_folder, tmp_path, dtype):
    """Keys and values that were carried from row to row are those of the answer: reading it again agrees."""
    model = load(str(tiny_folder("llama")), cache_dir=CACHE, dtype=dtype, device="cpu")
    engine = Engine(lambda: model, VectorStore(tmp_path), name="llama")
    wait_until_ready(engine)
    try:
        wanted = {"logprobs": True, "interventions": [STEER]}
        neighbour = start(engine, request("n", prompt(7), max_tokens=40, temperature=1.0, seed=1))
        for seed in range(3):
            _, _, done = ours(engine, prompt(seed), 6, 16, **wanted)
            again = request("r", [*prompt(seed), *done.tokens], max_tokens=0, prompt_logprobs=True, **wanted)
            read = [t for e in start(engine, again).wait().events if isinstance(e, PromptRead) for t in e.tokens]
            expected = [t.logprob for t in read[len(prompt(seed)) :]]
            told = [e.logprob for e in done.events if hasattr(e, "token_id")]
            assert told == pytest.approx(expected, abs=1e-3 if dtype == "float32" else 0.5)
        neighbour.wait()
    finally:
        engine.close()


def test_nothing_streams_before_the_search_is_over(make_engine):
    events = ours(make_engine(), prompt(3), 3, 10)[2].events
    assert [type(e).__name__ for e in events] == ["Started", *["Token"] * 10, "Finished"]
    assert [e.seq for e in events] == list(range(12))


def test_a_stop_string_ends_an_answer(make_engine):
    engine = make_engine()
    free = ours(engine, prompt(1), 4, 30)[2]
    stop = re.search("[!-~]{2}", free.text)[0]
    _, _, done = ours(engine, prompt(1), 4, 30, stop=(stop,))
    ended = [b for b in done.finished.receipt.beams if b.tokens < 30]
    assert ended and not any(stop in b.text for b in ended)
    assert done.text == done.finished.receipt.beams[0].text
    assert done.finished.reason == ("stop" if done.finished.receipt.beams[0].tokens < 30 else "length")
    assert len(done.finished.receipt.beams) == 4


def test_all_of_the_prompt_is_told_once(make_engine):
    engine = make_engine(prefill_tokens=4)
    plain = start(engine, request("p", prompt(1), prompt_logprobs=True, logprobs=True)).wait()
    _, _, done = ours(engine, prompt(1), 4, 12, prompt_logprobs=True, logprobs=True)
    told, expected = ([t for e in x.events if isinstance(e, PromptRead) for t in e.tokens] for x in (done, plain))
    assert [(t.token_id, t.logprob) for t in told] == [(t.token_id, pytest.approx(t.logprob)) for t in expected]
    only = start(engine, request("o", prompt(1), max_tokens=0, beam_width=4, prompt_logprobs=True)).wait()
    assert only.finished.usage.completion_tokens == 0 and only.finished.receipt.beams == ()


# ---- under a constraint ----


def constrained(engine, pattern: str, width: int, tokens: int, ids=None, **more):
    asked = request(
        "k",
        ids or engine.batch.model.encode_prompt("So"),
        max_tokens=tokens,
        beam_width=width,
        ignore_eos=False,
        **more,
    )
    return start(engine, replace(asked, constraint=Constraint("regex", pattern))).wait()


def test_constrained_beams_are_those_of_hugging_face_under_the_same_mask(make_engine):
    engine = make_engine()
    model, pattern = engine.batch.model, "[a-m]{3,6}( [n-z]+)*"

    def allowed(_, row):
        matcher = model.constraints.row(Constraint("regex", pattern))
        for token in row.tolist()[len(ids) :]:
            matcher.accept(token)
        return matcher.mask().nonzero().flatten().tolist()

    for sentence in tiny.SENTENCES[:3]:
        ids = model.encode_prompt(sentence)
        theirs = {"eos": [1], "prefix_allowed_tokens_fn": allowed}
        expected, scores = hugging_face(model, ids, 4, 12, **theirs)
        done = constrained(engine, pattern, 4, 12, ids)
        beams = done.finished.receipt.beams
        whole = [beam for beam in beams if re.fullmatch(pattern, beam.text)]
        assert {round(b.score, 4) for b in beams} == {round(s, 4) for s in scores}
        assert beams[: len(whole)] == tuple(whole), "what was cut off comes last"
        assert not whole or done.text == whole[0].text
        if not whole:
            assert done.tokens == expected[0]


def test_every_beam_keeps_to_its_constraint(make_engine):
    engine = make_engine()
    done = constrained(engine, "yes|no|maybe|[0-9]{2}", 8, 12, logprobs=True)
    texts = [beam.text for beam in done.finished.receipt.beams]
    assert len(texts) == 8 and all(re.fullmatch("yes|no|maybe|[0-9]{2}", text) for text in texts)
    assert done.text == texts[0] and done.finished.reason == "stop"
    assert done.finished.receipt.constraint.complete and done.finished.receipt.constraint.masked_tokens == len(
        done.tokens
    )
    few = constrained(engine, "yes|no", 8, 12)
    assert {beam.text for beam in few.finished.receipt.beams} == {"yes", "no"}
    short = constrained(engine, "[0-9]{20}", 3, 5)
    assert short.finished.reason == "length" and not short.finished.receipt.constraint.complete


def test_a_constraint_that_no_beam_can_follow_ends_with_a_reason(make_engine, monkeypatch):
    engine = make_engine()
    monkeypatch.setattr(RowConstraint, "settle", lambda self, bits: (self._fail("too many items"), bits.fill(0)))
    done = constrained(engine, "[0-9]{20}", 3, 5)
    assert done.finished.reason == "constraint" and done.tokens == []
    assert "too many items" in done.finished.receipt.constraint.problem
    assert not engine.batch.rows


# ---- beside others ----


def crowd() -> list:
    """Beams of several widths among plain rows, steered in several ways."""
    late = replace(add(D, 2, seed=8), positions=Positions(prompt=False), schedule=Schedule("decay", 3))
    gate = Condition(1, 0.0, direction=direction(D, 1, seed=6).values, decided="prompt")
    gated = replace(late, schedule=None, condition=gate)
    here = replace(add(D, 2, seed=9), condition=replace(gate, decided="token"))
    edits = [[], [STEER], [late], [gated], [here], [here, late]]
    widths = [1, 3, 1, 5, 2, 4, 1, 2]
    return [
        request(f"c{i}", prompt(30 + i // 2, 3 + 4 * i), max_tokens=8 + 5 * (i % 4), interventions=edits[i % 6], **how)
        for i, width in enumerate(widths)
        for how in [{"beam_width": width} if width > 1 else {"temperature": 0.8, "seed": i}]
    ]


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_beams_and_plain_rows_write_what_they_write_alone(make_engine, family):
    engine = make_engine(family, prefill_tokens=16)
    requests = crowd()
    expected = [start(engine, r).wait() for r in requests]
    listeners = [start(engine, r) for r in requests]
    assert [x.wait().tokens for x in listeners] == [x.tokens for x in expected]
    for mixed, single in zip(listeners, expected, strict=True):
        assert mixed.finished.receipt == single.finished.receipt or _nearly(mixed, single)
    assert together(engine, [replace(r, id=r.id + "t") for r in requests], join_every=1) == [x.tokens for x in expected]
    assert engine.describe().rows == 0 and not engine.batch.rows


def _nearly(one, other) -> bool:
    """Tallies are sums, which may round differently in another batch shape."""
    for a, b in zip(one.finished.receipt.applied, other.finished.receipt.applied, strict=True):
        assert (a.prompt_tokens, a.generated_tokens) == (b.prompt_tokens, b.generated_tokens)
        assert a.mean_dose == pytest.approx(b.mean_dose) and a.projection_after == pytest.approx(b.projection_after)
    return True


def test_the_receipt_is_that_of_the_answer_written_alone(make_engine):
    """Beams that were given up leave nothing in it: what reading the answer once more does is the same."""
    engine = make_engine()
    steer = replace(STEER, operation="ablate", strength=0.5)
    _, _, done = ours(engine, prompt(2), 6, 15, interventions=[steer])
    (applied,) = done.finished.receipt.applied
    assert (applied.prompt_tokens, applied.generated_tokens) == (len(prompt(2)), len(done.tokens) - 1)
    again = request("r", [*prompt(2), *done.tokens[:-1]], max_tokens=0, prompt_logprobs=True, interventions=[steer])
    (expected,) = start(engine, again).wait().finished.receipt.applied
    assert applied.mean_dose == pytest.approx(expected.mean_dose, rel=1e-9)
    assert applied.projection_before == pytest.approx(expected.projection_before, rel=1e-9)


@pytest.mark.parametrize("when", ["waiting", "prefill", "decode"])
def test_a_search_that_is_cancelled_leaves_no_trace(make_engine, when):
    engine = make_engine(prefill_tokens=4, max_rows=8)
    plain = request("p", range(10, 20), max_tokens=60)
    before = alone(engine, plain)
    running = start(engine, plain)
    running.wait_for_tokens(2)
    if when == "waiting":
        start(engine, request("full", prompt(2, 40), max_tokens=50, beam_width=6))
    victim = start(engine, request("v", prompt(4, 40), max_tokens=80, beam_width=6, interventions=[STEER]))
    if when == "decode":
        late = start(engine, request("late", prompt(5, 5), max_tokens=2))  # is admitted after the search writes
        late.wait()
    elif when == "prefill":
        victim.take()
    engine.cancel("v")
    engine.cancel("full")
    assert victim.wait().finished.reason == "cancelled"
    assert victim.finished.usage.completion_tokens == 0 and victim.tokens == []
    assert running.wait().tokens == before
    assert engine.describe().rows == 0 and not engine.batch.rows
    assert alone(engine, plain) == before


def test_a_search_that_does_not_fit_waits_and_others_go_on(make_engine):
    engine = make_engine(max_rows=6)
    expected = ours(engine, prompt(1), 5, 20)[0]
    plain = [start(engine, request(f"p{i}", prompt(i), max_tokens=40)) for i in range(3)]
    search = start(engine, request("b", prompt(1), max_tokens=20, beam_width=5))
    most = 0
    while not search.events or search.events[-1].__class__.__name__ != "Finished":
        search.take()
        most = max(most, len(engine.batch.rows))
    assert search.tokens == expected
    assert all(x.wait().finished.reason == "length" for x in plain)
    assert most <= 6


def test_overflowing_numbers_fail_the_search_only(make_engine):
    engine = make_engine()
    huge = replace(add(D, 1, 1), strength=1e300, directions=(direction(D, 1, 1, norm=1e38),))
    neighbour = start(engine, request("n", range(10, 20), max_tokens=40))
    broken = start(engine, request("x", range(10, 20), beam_width=4, interventions=[huge])).wait()
    assert broken.failed.code == "numbers_overflowed"
    assert neighbour.wait().tokens == alone(engine, request("again", range(10, 20), max_tokens=40))
    assert not engine.batch.rows


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"beam_width": 0}, "bad_beam_width"),
        ({"beam_width": 17}, "bad_beam_width"),
        ({"beam_width": 4, "length_penalty": 11.0}, "bad_length_penalty"),
        ({"beam_width": 4, "length_penalty": float("nan")}, "bad_length_penalty"),
        ({"beam_width": 4, "temperature": 0.7}, "bad_beam_width"),
        ({"beam_width": 4, "temperature_schedule": (0.5,)}, "bad_beam_width"),
        ({"beam_width": 9}, "too_many_rows"),
        ({"beam_width": 8, "max_tokens": 60}, "request_too_large"),
    ],
)
def test_what_a_search_cannot_do_is_refused(make_engine, asked, code):
    engine = make_engine(max_rows=8, cache_bytes=512 * 2 * 4 * 2 * 8 * 8)
    with pytest.raises(InvalidRequest) as refusal:
        engine.prepare(request("x", prompt(1), **asked))
    assert refusal.value.code == code and len(refusal.value.message) > 30


@pytest.mark.parametrize("field", ["watches", "draft", "ensemble"])
def test_what_does_not_go_with_beams_is_refused_by_name(make_engine, field):
    given = {"watches": (Watch("w", Probe(1)),), "draft": Draft(), "ensemble": Ensemble((Member(),))}[field]
    with pytest.raises(InvalidRequest) as refusal:
        make_engine().prepare(replace(request("x", prompt(1), beam_width=3), **{field: given}))
    assert refusal.value.code == ("draft_with_beams" if field == "draft" else f"beams_with_{field}")
    assert "Leave" in refusal.value.message
