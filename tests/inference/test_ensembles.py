"""Ensembles: the combination by hand from Hugging Face's forward passes, its draws, and its place among other rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from inference.companions import Companions
from inference.engine import Engine
from inference.ensembles import combine
from inference.errors import InvalidRequest, NotFound
from inference.store import VectorStore
from inference.types import Constraint, Draft, Ensemble, Member, Positions, Probe, SamplingParams, Token, Watch
from tests.inference import tiny
from tests.inference.conftest import wait_until_ready
from tests.inference.driver import add, alone, direction, request, start, together

D = 32
CALM, LOUD = add(D, 1, seed=4, strength=6.0), add(D, 2, seed=9, strength=-4.0)
HALF_CALM = Ensemble((Member(0.5, (CALM,)), Member(0.5)))


def prompt(seed: int, length: int = 11) -> list[int]:
    return torch.randint(5, tiny.VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def ask(id: str, ensemble: Ensemble, ids: list[int] | None = None, **more):
    return replace(request(id, ids or prompt(1), **more), ensemble=ensemble)


def told(done) -> list[Token]:
    return [e for e in done.events if isinstance(e, Token)]


# ---- against Hugging Face ----


def by_hand(model, ids: list[int], edits) -> torch.Tensor:
    """Logits [tokens, vocab] of one forward pass with what `edits` add to the residual by hooks of our own."""

    def adding(edit):
        values = torch.from_numpy(edit.directions[0].values * edit.strength).to(torch.float64)

        def hook(module, args, output):
            return (output[0] + values, *output[1:]) if isinstance(output, tuple) else output + values

        return hook

    handles = [model.layers[e.directions[0].site.layer].register_forward_hook(adding(e)) for e in edits]
    try:
        with torch.inference_mode():
            return model.hf(torch.tensor([ids])).logits[0]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(("family", "strength"), [("llama", 1), ("gpt2", 1), ("qwen3", 1), ("gemma3", 10)])
@pytest.mark.parametrize("how", ["mixture", "product"])
def test_each_token_is_the_likeliest_of_what_the_members_say_together(make_engine, family, strength, how):
    engine = make_engine(family)
    calm, loud = (replace(edit, strength=edit.strength * strength) for edit in (CALM, LOUD))
    members = (Member(2.0, (calm,)), Member(1.0), Member(1.0, (loud,)))
    done = start(engine, ask("e", Ensemble(members, how), max_tokens=12, logprobs=True, interventions=[loud])).wait()
    ids, weights = [*prompt(1), *done.tokens], torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)[:, None, None]
    logp = torch.stack([by_hand(engine.batch.model, ids, [loud, *m.interventions]).log_softmax(-1) for m in members])
    mixture, product = (logp.exp() * weights).sum(0).log(), (logp * weights).sum(0).log_softmax(-1)
    expected = (mixture if how == "mixture" else product)[len(prompt(1)) - 1 : -1]
    assert done.tokens == expected.argmax(-1).tolist()
    assert [t.logprob for t in told(done)] == pytest.approx(expected.amax(-1).tolist(), abs=1e-6)  # float32 directions
    alike = [[loud, *m.interventions] for m in members]
    singles = [alone(engine, request("s", prompt(1), max_tokens=12, interventions=edits)) for edits in alike]
    assert len({tuple(s) for s in singles}) > 1, "the members are too alike to prove anything"


def test_a_mixture_is_drawn_as_the_sum_of_its_members(make_engine):
    """A thousand first tokens against the distribution by hand, at a level of 0.001."""
    engine = make_engine(max_rows=64)
    ids, model = prompt(2), engine.batch.model
    logits = torch.stack([by_hand(model, ids, edits)[-1] for edits in ([CALM], [])])
    shares = (logits.softmax(-1) * torch.tensor([[0.7], [0.3]], dtype=torch.float64)).sum(0).numpy()
    ensemble = Ensemble((Member(7.0, (CALM,)), Member(3.0)))
    asked = [ask(f"e{n}", ensemble, ids, max_tokens=1, temperature=1.0, seed=n) for n in range(1000)]
    drawn: list[int] = []
    for at in range(0, len(asked), 200):
        drawn += [x.wait().tokens[0] for x in [start(engine, one) for one in asked[at : at + 200]]]
    counts = np.bincount(drawn, minlength=tiny.VOCAB)
    frequent = shares * len(drawn) >= 5
    seen = [*counts[frequent], counts[~frequent].sum()]
    wanted = [*(shares[frequent] * len(drawn)), shares[~frequent].sum() * len(drawn)]
    assert len(seen) > 8 and chisquare(seen, wanted).pvalue > 1e-3
    for one in logits.softmax(-1).numpy():  # neither member alone would pass
        assert chisquare(seen, [*(one[frequent] * len(drawn)), one[~frequent].sum() * len(drawn)]).pvalue < 1e-6


@pytest.mark.parametrize("how", ["mixture", "product"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.9, "seed": 3, "top_p": 0.9},
        {"temperature": 1.2, "seed": 4, "repetition_penalty": 1.5, "frequency_penalty": 0.4, "min_p": 0.02},
        {"temperature": 0.8, "seed": 5, "logit_bias": {7: 3.0}, "top_k": 20, "typical_p": 0.9},
        {"temperature_schedule": (1.5, 0.3), "temperature": 1.0, "seed": 6, "ads_subset_size": 4},
    ],
    ids=["greedy", "top-p", "penalties", "typical", "ads"],
)
def test_members_that_agree_write_what_one_writes_alone(make_engine, how, settings):
    engine = make_engine()
    for seed in range(3):
        more = {"max_tokens": 20, "logprobs": True, **settings}
        single = start(engine, request("s", prompt(seed), interventions=[CALM], **more)).wait()
        several = Ensemble((Member(1.0, (CALM,)), Member(3.0, (CALM,)), Member(0.5, (CALM,))), how)
        done = start(engine, ask("e", several, prompt(seed), **more)).wait()
        assert done.tokens == single.tokens and done.text == single.text
        assert [t.logprob for t in told(done)] == pytest.approx([t.logprob for t in told(single)], abs=1e-9)


@pytest.mark.parametrize("how", ["mixture", "product"])
def test_one_member_or_the_only_one_that_weighs_is_that_member(make_engine, how):
    engine = make_engine()
    single = alone(engine, request("s", prompt(1), temperature=0.9, seed=1, interventions=[CALM]))
    for members in [(Member(1.0, (CALM,)),), (Member(0.0), Member(2.0, (CALM,)))]:
        assert alone(engine, ask("e", Ensemble(members, how), temperature=0.9, seed=1)) == single


def test_combining_by_hand():
    logits = torch.tensor([[0.0, 1.0, 2.0], [5.0, 5.0, -torch.inf]])
    p = logits.double().softmax(-1)
    mixture = combine(logits.double(), [0.25, 0.75], "mixture").softmax(-1)
    assert torch.allclose(mixture, 0.25 * p[0] + 0.75 * p[1])
    product = combine(logits.double(), [0.5, 0.5], "product").softmax(-1)
    assert torch.allclose(product, (p[0] * p[1]).sqrt() / (p[0] * p[1]).sqrt().sum())
    assert product[2] == 0 and combine(logits.bfloat16(), [0.5, 0.5], "product").dtype == torch.float32


# ---- half calm, half base ----


def test_half_calm_half_base(make_engine):
    engine = make_engine()
    calm = replace(CALM, positions=Positions(prompt=False))
    done = start(engine, ask("e", Ensemble((Member(1.0, (calm,)), Member(1.0))), max_tokens=10)).wait()
    receipt = done.finished.receipt
    assert [(m.weight, m.model, len(m.applied)) for m in receipt.members] == [(0.5, "", 1), (0.5, "", 0)]
    (applied,) = receipt.members[0].applied
    assert (applied.prompt_tokens, applied.generated_tokens) == (0, 9)
    assert receipt.applied == (applied,)
    assert done.finished.usage.prompt_tokens == 11 and done.finished.usage.completion_tokens == 10


def test_members_that_read_the_prompt_alike_read_it_once(make_engine):
    engine = make_engine(prefill_tokens=4)
    read = []
    good = engine.batch._read
    engine.batch._read = lambda group, start, stop: (read.append(len(group)), good(group, start, stop))[1]
    late = replace(CALM, positions=Positions(prompt=False))
    alone(engine, ask("e", Ensemble((Member(1.0, (late,)), Member(1.0), Member(1.0, (CALM,)))), prompt(3, 40)))
    assert set(read) == {2}


def test_a_shared_intervention_is_each_members_own(make_engine):
    engine = make_engine()
    done = start(engine, ask("e", HALF_CALM, max_tokens=6, interventions=[LOUD])).wait()
    assert [len(m.applied) for m in done.finished.receipt.members] == [2, 1]
    assert {a.generated_tokens for a in done.finished.receipt.applied} == {5}


def test_an_ensemble_streams_and_ends_as_a_row_does(make_engine):
    engine = make_engine()
    whole = start(engine, ask("e", HALF_CALM, max_tokens=20, temperature=1.0, seed=2)).wait()
    assert [type(e).__name__ for e in whole.events] == ["Started", *["Token"] * 20, "Finished"]
    assert whole.finished.reason == "length"
    engine.batch.model.eos_ids = frozenset([whole.tokens[7]])
    ended = start(engine, ask("s", HALF_CALM, max_tokens=20, temperature=1.0, seed=2, ignore_eos=False)).wait()
    assert ended.finished.reason == "stop" and ended.tokens == whole.tokens[: whole.tokens.index(whole.tokens[7]) + 1]
    assert not engine.batch.rows


def test_an_ensemble_keeps_to_a_constraint(make_engine):
    engine = make_engine()
    asked = ask("e", HALF_CALM, max_tokens=12, temperature=1.0, seed=1, ignore_eos=False, logprobs=True)
    done = start(engine, replace(asked, constraint=Constraint("regex", "yes|no|maybe"))).wait()
    assert done.text in ("yes", "no", "maybe") and done.finished.reason == "stop"
    assert done.finished.receipt.constraint.complete and len(done.finished.receipt.members) == 2
    free = start(engine, ask("f", HALF_CALM, max_tokens=1, logprobs=True, logit_bias={done.tokens[0]: 100.0})).wait()
    assert told(done)[0].logprob == pytest.approx(told(free)[0].logprob, abs=1e-9), "what is told knows no mask"


# ---- beside others ----


def crowd() -> list:
    late = replace(CALM, positions=Positions(prompt=False))
    ensembles = [None, HALF_CALM, Ensemble((Member(1.0, (late,)), Member(2.0), Member(1.0, (LOUD,))), "product")]
    return [
        replace(
            request(f"c{i}", prompt(40 + i // 2, 2 + 5 * i), max_tokens=6 + 7 * (i % 3), interventions=edits, **how),
            ensemble=ensembles[i % 3],
        )
        for i in range(8)
        for edits in [[LOUD] if i % 4 == 1 else []]
        for how in [{"temperature": 0.9, "seed": i} if i % 2 else {}]
    ]


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_ensembles_beams_and_plain_rows_write_what_they_write_alone(make_engine, family):
    engine = make_engine(family, prefill_tokens=16)
    requests = [*crowd(), *(request(f"b{w}", prompt(w, 9), max_tokens=15, beam_width=w) for w in (3, 4))]
    expected = [alone(engine, r) for r in requests]
    assert [x.wait().tokens for x in [start(engine, r) for r in requests]] == expected
    assert together(engine, requests, join_every=2) == expected
    assert engine.describe().rows == 0 and not engine.batch.rows


@pytest.mark.parametrize("when", ["prefill", "decode"])
def test_an_ensemble_that_is_cancelled_leaves_no_trace(make_engine, when):
    engine = make_engine(prefill_tokens=4)
    plain = request("p", range(10, 20), max_tokens=60)
    before = alone(engine, plain)
    running = start(engine, plain)
    running.wait_for_tokens(2)
    victim = start(engine, ask("v", Ensemble((*HALF_CALM.members, Member())), prompt(3, 40), max_tokens=80))
    beside = start(engine, request("b", prompt(3, 40), max_tokens=10))  # reads the prompt with them
    if when == "prefill":
        victim.take()
    else:
        victim.wait_for_tokens(3)
    engine.cancel("v")
    assert victim.wait().finished.reason == "cancelled"
    assert victim.finished.usage.completion_tokens == len(victim.tokens)
    assert running.wait().tokens == before
    assert beside.wait().tokens == alone(engine, request("b2", prompt(3, 40), max_tokens=10))
    assert engine.describe().rows == 0 and not engine.batch.rows


def test_numbers_that_overflow_in_one_member_fail_the_ensemble_only(make_engine):
    engine = make_engine()
    huge = replace(add(D, 1, 1), strength=1e300, directions=(direction(D, 1, 1, norm=1e38),))
    neighbour = start(engine, request("n", range(10, 20), max_tokens=40))
    broken = start(engine, ask("x", Ensemble((Member(), Member(1.0, (huge,)))))).wait()
    assert broken.failed.code == "numbers_overflowed"
    assert neighbour.wait().tokens == alone(engine, request("again", range(10, 20), max_tokens=40))
    assert not engine.batch.rows


def test_an_ensemble_that_does_not_fit_waits(make_engine):
    engine = make_engine(cache_bytes=200 * 2 * 4 * 2 * 8 * 8)
    several = Ensemble((Member(), Member(1.0, (CALM,)), Member()))
    expected = alone(engine, ask("a", several, max_tokens=40))
    plain = [start(engine, request(f"p{i}", prompt(i), max_tokens=40)) for i in range(3)]
    waits = start(engine, ask("e", several, max_tokens=40))
    assert waits.wait().tokens == expected and all(x.wait().finished for x in plain)
    with pytest.raises(InvalidRequest, match="may be 66 tokens here for each of 3 rows"):
        engine.prepare(ask("e", several, max_tokens=60))


MANY = Ensemble((Member(),) * 9)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (ask("x", Ensemble(())), "bad_members"),
        (ask("x", MANY), "bad_members"),
        (ask("x", Ensemble((Member(0.0), Member(0.0)))), "bad_weight"),
        (ask("x", Ensemble((Member(-1.0), Member(2.0)))), "bad_weight"),
        (ask("x", Ensemble((Member(float("nan")), Member()))), "bad_weight"),
        (ask("x", Ensemble((Member(float("inf")), Member()))), "bad_weight"),
        (replace(ask("x", HALF_CALM), watches=(Watch("w", Probe(1)),)), "ensemble_with_watches"),
        (replace(ask("x", HALF_CALM), draft=Draft()), "draft_with_ensemble"),
        (ask("x", HALF_CALM, beam_width=4), "beams_with_ensemble"),
        (ask("x", HALF_CALM, prompt_logprobs=True), "ensemble_with_prompt_logprobs"),
        (ask("x", Ensemble((Member(1.0, (CALM,) * 129),))), "too_many_interventions"),
        (ask("x", Ensemble((Member(1.0, (add(D, 77, 1),)),))), "layer_out_of_range"),
    ],
)
def test_what_an_ensemble_cannot_do_is_refused(make_engine, asked, code):
    with pytest.raises(InvalidRequest) as refusal:
        make_engine().prepare(asked)
    assert refusal.value.code == code and len(refusal.value.message) > 30


# ---- companions ----


@pytest.fixture
def paired(tiny_folder, tiny_model, tmp_path):
    """An engine of the llama with the gpt2 at its side."""
    folder = tmp_path / "other"
    tiny.save("gpt2", folder, seed=5)
    model = tiny_model("llama")
    engine = Engine(lambda: model, VectorStore(tmp_path / "v"), name="llama", companions=Companions([str(folder)]))
    wait_until_ready(engine)
    yield engine
    engine.close()


def test_a_companion_speaks_in_lockstep(paired):
    (other,) = paired.describe().companions
    members = (Member(1.0, (CALM,)), Member(1.0, (LOUD,), other))
    done = start(paired, ask("e", Ensemble(members), prompt(1, 50), max_tokens=14, logprobs=True)).wait()
    ids = [*prompt(1, 50), *done.tokens]
    models = [paired.batch.model, paired.companion(other)]
    p = [by_hand(model, ids, m.interventions).softmax(-1) for model, m in zip(models, members, strict=True)]
    expected = (0.5 * p[0] + 0.5 * p[1]).log()[len(prompt(1, 50)) - 1 : -1]
    assert done.tokens == expected.argmax(-1).tolist()
    assert [t.logprob for t in told(done)] == pytest.approx(expected.amax(-1).tolist(), abs=1e-6)
    receipt = done.finished.receipt
    assert [(m.model, m.applied[0].generated_tokens) for m in receipt.members] == [("", 13), (other, 13)]
    assert receipt.members[1].applied[0].prompt_tokens == 50


def test_companions_beside_others_and_cancelled(paired):
    (other,) = paired.describe().companions
    several = Ensemble((Member(), Member(1.0, (), other)), "product")
    requests = [request("p", prompt(3), max_tokens=30), ask("e", several, max_tokens=20, temperature=1.0, seed=1)]
    requests += [ask("f", several, prompt(4, 30), max_tokens=9), request("b", prompt(5), max_tokens=12, beam_width=3)]
    expected = [alone(paired, r) for r in requests]
    assert [x.wait().tokens for x in [start(paired, r) for r in requests]] == expected
    victim = start(paired, ask("v", several, prompt(4, 60), max_tokens=60))
    victim.wait_for_tokens(2)
    paired.cancel("v")
    assert victim.wait().finished.reason == "cancelled"
    assert alone(paired, requests[1]) == expected[1] and not paired.batch.rows


def test_companions_that_cannot_speak_are_refused(paired):
    (other,) = paired.describe().companions
    with pytest.raises(NotFound, match="no companion"):
        paired.prepare(ask("x", Ensemble((Member(), Member(1.0, (), "someone")))))
    with pytest.raises(InvalidRequest) as refusal:
        paired.prepare(ask("x", Ensemble((Member(1.0, (), other),))))
    assert refusal.value.code == "no_served_member"


def test_what_travels_is_what_was_asked():
    asked = ask("e", HALF_CALM, beam_width=2)
    back = type(asked).from_wire(asked.to_wire())
    assert back.ensemble is not None and len(back.ensemble.members[0].interventions) == 1
    assert isinstance(back.sampling, SamplingParams) and back.sampling.beam_width == 2
