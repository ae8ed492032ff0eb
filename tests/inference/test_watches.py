"""Watches read every token as it is read, steer where they fire, and a watched row can be taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from inference.batch import Batch, Row
from inference.compiling import edits_of
from inference.errors import InvalidRequest
from inference.models.loader import load
from inference.probes import checked_watches, compile_watch
from inference.sampling import row_state
from inference.types import (
    Condition,
    FeatureRef,
    Intervention,
    Positions,
    Probe,
    SamplingParams,
    Schedule,
    Scored,
    Token,
    Watch,
)
from tests.inference.conftest import CACHE
from tests.inference.driver import add, alone, direction, request, start, together
from tests.inference.test_features import (
    IDS,
    SOURCE,
    STEERED,
    D,
    feature,
    firing,
    no_vectors,
    residuals,
    with_sae,
)
from tests.inference.tiny import FAMILIES

GENERATED = Positions(prompt=False)
EVERY = Positions()


def probe(layer: int = 1, seed: int = 21, bias: float = 0.25) -> Probe:
    return Probe(layer, weights=direction(D, layer, seed, norm=1.0).values, bias=bias)


def watch(name: str = "w", on: Probe | None = None, **more) -> Watch:
    return Watch(name, on or probe(), **{"positions": EVERY, **more})


def make_row(model, interventions=(), watches: Sequence[Watch] = (), ids=IDS, **params) -> Row:
    params = {"max_tokens": 24, "temperature": 0.0, **params}
    seed = params.pop("seed", 0)
    state = row_state(SamplingParams(**params), list(ids), seed, model.vocab_size)
    edits = edits_of(tuple(interventions), model, no_vectors)
    return Row(list(ids), state, edits, [compile_watch(w, no_vectors, model) for w in watches])


def run(model, rows: list[Row], steps: int = 6, budget: int = 1000, batch: Batch | None = None) -> Batch:
    batch = batch or Batch(model)
    batch.join(rows)
    while batch.prefilling:
        batch.prefill(budget)
    for _ in range(steps):
        batch.step()
    batch.settle()
    return batch


def scores(made: Row) -> list[list[float | None]]:
    """[tokens][watches] from position 0 on; every token must have been told once, in order."""
    found: list[list[float | None]] = []
    for start_at, values in made.scores:
        assert start_at == len(found)
        found += values
    return found


def written(made: Row) -> list[int]:
    return made.tokens[made.prompt_length :]


def by_hand(on: Probe, hidden: torch.Tensor) -> torch.Tensor:
    return hidden[on.layer] @ torch.from_numpy(on.weights).double() + on.bias


# ---- reading ----


@pytest.mark.parametrize("family", FAMILIES)
def test_a_probe_reads_prompt_and_answer_at_any_layer(family, tiny_model):
    model = tiny_model(family)
    probes = [probe(layer, seed=layer) for layer in range(4)]
    made = make_row(model, watches=[watch(f"w{p.layer}", p) for p in probes])
    run(model, [made], steps=6, budget=5)
    assert len(made.tokens) == len(IDS) + 7
    hidden, _ = residuals(model, ids=made.tokens[:-1])  # the last token has not been read
    expected = torch.stack([by_hand(p, hidden) for p in probes], dim=1)
    torch.testing.assert_close(torch.tensor(scores(made)).double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", STEERED)
def test_a_probe_reads_features_as_sae_lens_does(architecture, tiny_model, tmp_path):
    model, sae = with_sae(tiny_model("llama"), tmp_path, architecture)
    base, _ = residuals(model)
    some = firing(sae, base[1], 5)
    weights = [1.0, -0.5, 2.0, 0.25, 3.0]
    single = Probe(1, features=(FeatureRef(SOURCE, some[0]),), feature_weights=(1.0,))
    several = Probe(1, features=tuple(FeatureRef(SOURCE, i) for i in some), feature_weights=tuple(weights), bias=-0.75)
    made = make_row(model, watches=[watch("one", single), watch("many", several), watch("dense")])
    run(model, [made, make_row(model)], budget=8)
    hidden, _ = residuals(model, ids=made.tokens[:-1])
    latents = sae.encode(hidden[1])
    expected = torch.stack(
        [latents[:, some[0]], latents[:, some] @ torch.tensor(weights).double() - 0.75, by_hand(probe(), hidden)], dim=1
    )
    torch.testing.assert_close(torch.tensor(scores(made)).double(), expected, atol=2e-5, rtol=2e-5)
    assert (latents[:, some] != 0).any()


def test_what_a_watch_leaves_out_has_no_score(tiny_model):
    model, ids = tiny_model("llama"), [0, *IDS[1:5], 3, *IDS[6:]]  # <bos> first, <user> at 5
    places = [Positions(special=False), Positions(start=3, stop=15), GENERATED, EVERY]
    made = make_row(model, watches=[watch(f"w{i}", positions=p) for i, p in enumerate(places)], ids=ids)
    run(model, [made], steps=4, budget=4)
    found = scores(made)
    special = [i for i, token in enumerate(made.tokens[:-1]) if token in model.special_ids]
    assert {0, 5} <= set(special)
    wanted = [
        {*range(17)} - {*special},
        {*range(3, 15)},
        {*range(13, 17)},
        {*range(17)},
    ]
    assert [{i for i, v in enumerate(column) if v is not None} for column in zip(*found, strict=True)] == wanted
    assert all(len({v for v in values if v is not None}) == 1 for values in found)


class Reading(Batch):
    """Counts the tokens that are read."""

    read = 0

    def _read(self, group, start, stop):
        self.read += len(group) * (stop - start)
        return super()._read(group, start, stop)


@pytest.mark.parametrize("leaves", [None, 0, 1])
def test_rows_that_share_a_prompt_are_read_once_and_each_gets_its_own(leaves, tiny_model):
    model, batch = tiny_model("llama"), Reading(tiny_model("llama"))
    cases = [[], [watch("a")], [watch("b", probe(2)), watch("a")], [watch("late", probe(3), positions=GENERATED)]]
    rows = [make_row(batch.model, watches=w) for w in cases]
    batch.join(rows)
    batch.prefill(5)
    if leaves is not None:
        batch.drop(rows.pop(leaves))
    while batch.prefilling:
        batch.prefill(5)
    for _ in range(3):
        batch.step()
    assert batch.read == len(IDS)
    for made in rows:
        lone = make_row(model, watches=[w.source for w in made.watches])
        run(model, [lone], steps=3)
        assert written(made) == written(lone)
        if made.watches and made.watches[0].source.name != "late":
            got, expected = torch.tensor(scores(made)), torch.tensor(scores(lone))
            torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)
        elif made.watches:
            assert [at for at, _ in made.scores] == [13, 14, 15]
        else:
            assert not made.scores


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_of_ours_reads_what_the_modules_read(tiny_folder, dtype, tmp_path):
    folder = str(tiny_folder("qwen3"))
    models = [load(folder, cache_dir=CACHE, dtype=dtype, device="cpu", speed=speed) for speed in (None, ())]
    if models[0].decoder is None:
        pytest.skip("no C compiler here")
    seen = []
    for model in models:
        with_sae(model, tmp_path, "jumprelu")
        on = Probe(1, features=tuple(FeatureRef(SOURCE, i) for i in range(9)), feature_weights=(1.0,) * 9)
        watches = [watch("a", probe(0)), watch("b", probe(3)), watch("c", on)]
        rows = [make_row(model, watches=watches), make_row(model, [add(D, 0, 3, 2.0)], watches[:1]), make_row(model)]
        batch = Batch(model)
        batch.join(rows)
        batch.prefill(1000)
        for token in (9, 8, 30, 31, 60, 61):
            for made in rows:
                made.tokens[-1] = token
            batch.step()
        seen.append([torch.tensor(scores(made)) for made in rows[:2]])
    loose = {"atol": 0.3, "rtol": 5e-2} if dtype == "bfloat16" else {"atol": 1e-3, "rtol": 1e-3}
    for fast, plain in zip(*seen, strict=True):
        assert len(fast) == len(IDS) + 6
        torch.testing.assert_close(fast, plain, **loose)


def test_neighbours_of_a_watched_row_keep_their_bits(tiny_folder):
    model = load(str(tiny_folder("llama")), cache_dir=CACHE, dtype="bfloat16", device="cpu")

    def logits(watches: list[Watch]) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        rows = [make_row(model, [add(D, 1, 5, 4.0)]), make_row(model, ids=IDS[:7], watches=watches), make_row(model)]
        batch = Batch(model)
        batch._choose = lambda rows, found: seen.append(found.clone()) or [r.tokens.append(9) for r in rows]
        batch.join(rows)
        batch.prefill(1000)
        for _ in range(3):
            batch.step()
        return torch.stack(seen)

    watched = [watch("a"), watch("b", probe(2))]
    assert torch.equal(logits([]), logits(watched))
    steering = [watch("a", threshold=-1e9, action="steer", interventions=(add(D, 2, 6, 4.0),))]
    bare, other = logits([]), logits(steering)
    assert torch.equal(bare[:, [0, 2]], other[:, [0, 2]])
    assert not torch.equal(bare[:, 1], other[:, 1])


# ---- steering where it fires ----


def steer(threshold: float, *interventions: Intervention, **more) -> Watch:
    return watch("s", threshold=threshold, action="steer", interventions=interventions, **more)


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("dose", ["fixed", "proportional"])
def test_a_watch_steers_the_tokens_that_it_fires_at(layer, dose, tiny_model):
    """At its own site too, where it reads the residual before its own edit and before any other."""
    model = tiny_model("llama")
    base, _ = residuals(model)
    values = by_hand(probe(), base)
    threshold = float(values.median()) + 1e-6
    moving = add(D, 1, 8, 9.0)
    pushed = base[1] + 9.0 * torch.from_numpy(moving.directions[0].values).double()
    w = steer(threshold, add(D, layer, 5, 4.0), dose=dose, scale=0.5)
    made = make_row(model, [moving] if layer == 1 else [], [w])
    model.hooks.taken = []
    batch = run(model, [made], steps=0)
    taken, model.hooks.taken = torch.stack(model.hooks.taken)[:, 0].double(), None
    expected = torch.tensor([made.watches[0].dose(float(v)) for v in values]).double()
    before = pushed if layer == 1 else base[layer]
    change = (taken[layer] - before) @ torch.from_numpy(add(D, layer, 5).directions[0].values).double() / 9.0
    torch.testing.assert_close(change, 4.0 * expected, atol=1e-5, rtol=1e-5)
    applied = made.edits[-1].applied()
    assert applied.watch == "s"
    assert applied.prompt_tokens == int((expected > 0).sum())
    assert 0 < applied.prompt_tokens < 13
    if dose == "proportional":
        assert ((expected > 0) & (expected < 1)).any()
    assert batch.decoding == 1


def test_a_threshold_out_of_reach_is_base_and_a_low_one_steers_always(tiny_model):
    model = tiny_model("gpt2")
    edit = add(D, 2, 5, 6.0)
    base, always = make_row(model), make_row(model, [edit])
    rows = [steer(1e9, edit), steer(-1e9, edit), steer(1e9, edit, force=True)]
    gated = [make_row(model, watches=[w]) for w in rows]
    run(model, [base, always, *gated])
    assert written(gated[0]) == written(base) != written(always)
    assert written(gated[1]) == written(gated[2]) == written(always)
    assert gated[0].edits[0].applied().generated_tokens == 0
    assert gated[2].edits[0].applied().generated_tokens == 6
    assert scores(gated[2]), "what is forced is read all the same"


def test_forced_steering_keeps_to_the_watch_s_positions_and_may_come_before_its_probe(tiny_model):
    model = tiny_model("llama")
    late = make_row(model, [replace(add(D, 0, 5, 6.0), positions=GENERATED)])
    w = steer(0.0, add(D, 0, 5, 6.0), force=True, positions=GENERATED)
    base, forced = make_row(model), make_row(model, watches=[w])
    batch = Reading(model)
    run(model, [late, base, forced], batch=batch)
    assert batch.read == len(IDS), "its edits leave the prompt alone, so it is shared"
    assert written(forced) == written(late) != written(base)


def test_watches_with_schedules_conditions_and_features(tiny_model, tmp_path):
    model, sae = with_sae(tiny_model("llama"), tmp_path)
    base, _ = residuals(model)
    (a,) = firing(sae, base[1], 1)
    on = Probe(1, features=(FeatureRef(SOURCE, a),), feature_weights=(1.0,))
    condition = Condition(1, 0.0, direction=direction(D, 1, 9).values, decided="token")
    w = watch(
        "calm", on, threshold=0.0, action="steer", interventions=(feature(a, "ablate"), feature(a + 1, "add", 0.0))
    )
    made = make_row(model, watches=[w])
    model.hooks.taken = []
    run(model, [made], steps=0)
    taken, model.hooks.taken = torch.stack(model.hooks.taken)[:, 0].double(), None
    latents = sae.encode(base[1])
    expected = base[1] - latents[:, a, None] * sae.W_dec[a]
    torch.testing.assert_close(taken[1], expected, atol=1e-5, rtol=1e-5)
    applied = made.edits[0].applied()
    assert applied.prompt_tokens == int((latents[:, a] > 0).sum())
    assert applied.activation == pytest.approx(float(latents[:, a][latents[:, a] > 0].mean()), abs=1e-5)

    both = replace(add(D, 2, 5, 4.0), condition=condition, schedule=Schedule("first", 3))
    made = make_row(model, watches=[replace(w, interventions=(both,), positions=EVERY)])
    run(model, [made], steps=0)
    applied = made.edits[0].applied()
    opens = base[1] @ torch.from_numpy(condition.direction).double() > 0
    fires = latents[:, a] > 0
    assert applied.prompt_tokens == int((opens & fires).sum())
    assert applied.condition.held_tokens == int((~opens & fires).sum())


def watched(a: int) -> list[list[Watch]]:
    on = Probe(1, features=(FeatureRef(SOURCE, a), FeatureRef(SOURCE, a + 1)), feature_weights=(1.0, -1.0))
    return [
        [],
        [watch("a"), watch("b", probe(3))],
        [steer(0.0, add(D, 1, 5, 5.0))],
        [steer(0.3, add(D, 3, 5, 5.0), dose="proportional", scale=2.0)],
        [replace(steer(0.0, feature(a, "clamp", 4.0)), probe=on)],
        [steer(0.0, add(D, 1, 6, 5.0), force=True), replace(steer(0.2, add(D, 2, 7, 5.0)), name="t", probe=probe(2))],
    ]


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma2"])
def test_rows_write_and_read_what_they_would_alone(family, make_engine, tmp_path):
    engine = make_engine(family, prefill_tokens=8)
    with_sae(engine.batch.model, tmp_path / "saes", "topk")
    requests = [replace(request(f"r{i}", IDS, max_tokens=12), watches=tuple(w)) for i, w in enumerate(watched(3))]
    lone = [start(engine, r).wait() for r in requests]
    listeners = [start(engine, r) for r in requests]
    joined = [listener.wait() for listener in listeners]
    assert together(engine, requests) == [listener.tokens for listener in lone]
    assert len({tuple(listener.tokens) for listener in lone}) >= 4
    for one, other in zip(lone, joined, strict=True):
        assert one.tokens == other.tokens
        assert told(one) == pytest.approx(told(other), abs=1e-9)


def told(listener) -> list[float]:
    return [v for e in listener.events if isinstance(e, Scored) for values in e.values for v in values]


def test_the_engine_sends_scores_of_every_token_but_the_last(make_engine):
    engine = make_engine("llama", prefill_tokens=6)
    asked = replace(request("r", IDS, max_tokens=5), watches=(watch("a"), watch("b", probe(2), positions=GENERATED)))
    events = start(engine, asked).wait().events
    found: dict[int, tuple[float | None, ...]] = {}
    tokens = 0
    for event in events:
        tokens += isinstance(event, Token)
        if isinstance(event, Scored):
            for at, values in enumerate(event.values, event.start):
                assert at not in found
                assert at < len(IDS) + tokens, "scores follow their token"
                found[at] = values
    assert sorted(found) == list(range(len(IDS) + 4))
    assert [at for at, (_, b) in found.items() if b is not None] == list(range(13, 17))
    assert all(a is not None for a, _ in found.values())
    plain = alone(engine, request("plain", IDS, max_tokens=5))
    assert plain == [e.token_id for e in events if isinstance(e, Token)]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (watch(on=Probe(1)), "one_source"),
        (watch(on=replace(probe(), features=(FeatureRef(SOURCE, 1),), feature_weights=(1.0,))), "one_source"),
        (watch(on=probe(4)), "layer_out_of_range"),
        (watch(on=Probe(1, weights=np.ones(5, np.float32))), "wrong_size"),
        (watch(on=Probe(1, weights=np.full(D, np.nan, np.float32))), "bad_direction"),
        (watch(on=Probe(1, features=(FeatureRef(SOURCE, 1),))), "wrong_size"),
        (watch(on=Probe(2, features=(FeatureRef(SOURCE, 1),), feature_weights=(1.0,))), "probe_site"),
        (watch(on=Probe(1, features=(FeatureRef(SOURCE, 64),), feature_weights=(1.0,))), "feature_out_of_range"),
        (
            watch(on=Probe(1, features=(FeatureRef(SOURCE, 1), FeatureRef("x", 1)), feature_weights=(1.0, 1.0))),
            "one_source",
        ),
        (watch(action="steer", threshold=0.0), "nothing_to_steer"),
        (watch(threshold=0.0, interventions=(add(D, 1, 1),)), "interventions_unused"),
        (watch(action="stop"), "no_threshold"),
        (watch(action="steer", interventions=(add(D, 1, 1),)), "no_threshold"),
        (steer(0.0, add(D, 0, 1)), "watch_after_edit"),
        (steer(0.0, add(D, 1, 1), scale=0.0), "bad_threshold"),
        (steer(float("nan"), add(D, 1, 1)), "bad_threshold"),
        (steer(0.0, add(D, 4, 1)), "layer_out_of_range"),
        (watch(positions=Positions(prompt=False, generated=False)), "no_positions"),
        (watch(positions=Positions(start=4, stop=4)), "bad_window"),
    ],
)
def test_a_watch_that_cannot_be_honoured_is_refused(bad, code, tiny_model, tmp_path):
    model, _ = with_sae(tiny_model("llama"), tmp_path)
    with pytest.raises(InvalidRequest) as refusal:
        compile_watch(bad, no_vectors, model)
    assert refusal.value.code == code


def test_watches_are_told_apart_and_counted():
    with pytest.raises(InvalidRequest, match="one name"):
        checked_watches((watch("a"), watch("a", probe(2))))
    with pytest.raises(InvalidRequest, match="At most"):
        checked_watches(tuple(watch(f"w{i}") for i in range(17)))


# ---- taken back ----

AGAIN = watch("again", threshold=1e9, action="regenerate", positions=GENERATED)


@pytest.mark.parametrize("n", [1, 4, 6, 7])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_that_is_taken_back_goes_on_as_one_that_never_wrote_it(family, n, tiny_model):
    """Greedy: it writes the same once more; neighbours do not notice."""
    model = tiny_model(family)
    edits = [replace(add(D, 1, 5, 5.0), schedule=Schedule("ramp", 9)), add(D, 2, 6, 2.0)]
    expected, other = make_row(model, edits), make_row(model, ids=IDS[:5])
    run(model, [expected, other], steps=10)
    made, neighbour = make_row(model, edits, [AGAIN]), make_row(model, ids=IDS[:5])
    batch = run(model, [make_row(model, ids=IDS[::-1]), made, neighbour], steps=6)
    assert len(written(made)) == 7
    batch.rewind(made, n)
    assert len(written(made)) == 7 - n
    for _ in range(4 + n):
        batch.step()
    batch.settle()
    assert written(made) == written(expected)
    assert len(written(neighbour)) == 11 + n
    assert written(neighbour)[:11] == written(other)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_taking_back_on_the_native_path(family, tiny_folder):
    model = load(str(tiny_folder(family)), cache_dir=CACHE, dtype="float32", device="cpu")
    if model.decoder is None:
        pytest.skip("no C compiler here")
    edits = [add(D, 1, 5, 5.0)]
    expected = make_row(model, edits)
    run(model, [expected], steps=12)
    made = make_row(model, edits, [AGAIN])
    batch = run(model, [made, make_row(model)], steps=6)
    for n, steps in ((3, 3), (7, 6), (6, 12)):
        batch.rewind(made, n)
        for _ in range(steps + (n == 7)):
            batch.step()
    assert written(made) == written(expected)


@pytest.mark.parametrize("n", [3, 7])
def test_what_is_drawn_again_is_what_a_fresh_row_would_draw_with_that_generator(n, tiny_model):
    """Penalties count only what stands; the generator goes on, so that the words are others."""
    model = tiny_model("llama")
    params = {
        "temperature": 1.5,
        "seed": 4,
        "frequency_penalty": 0.7,
        "repetition_penalty": 1.3,
        "presence_penalty": 0.4,
    }
    made, fresh = (make_row(model, watches=[AGAIN], **params) for _ in range(2))
    batch = run(model, [made, make_row(model)], steps=6)
    first = written(made)
    batch.rewind(made, n)
    state = made.state.generator.get_state()
    for _ in range(6):
        batch.step()
    other = Batch(model)
    other.join([fresh])
    other.prefill(1000)
    for _ in range(6 - n):
        other.step()
    kept = written(fresh)[: 7 - n]
    assert kept == first[: 7 - n]
    if n == 7:
        other.rewind(fresh, 1)
    fresh.state.generator.set_state(state)
    for _ in range(6):
        other.step()
    assert written(made) == written(fresh)
    assert written(made)[:7] != first


def test_scores_after_taking_back_are_those_of_the_new_tokens(tiny_model):
    model = tiny_model("llama")
    made = make_row(model, watches=[AGAIN, watch("a")], temperature=1.5, seed=3)
    batch = run(model, [made], steps=6)
    made.scores.clear()
    batch.rewind(made, 7)
    for _ in range(5):
        batch.step()
    hidden, _ = residuals(model, ids=made.tokens[:-1])
    expected = by_hand(probe(), hidden)[13:]
    assert [at for at, _ in made.scores] == [13, 14, 15, 16]
    got = torch.tensor([values[0][1] for _, values in made.scores]).double()
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
