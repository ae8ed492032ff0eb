"""Features steer by their decoder rows: exactly as if sae-lens had set the latents and kept its error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sae_lens import SAE

from inference.batch import Batch, Row
from inference.compiling import edits_of
from inference.errors import InvalidRequest, NotFound
from inference.models.loader import load
from inference.saes.sources import Sources
from inference.sampling import row_state
from inference.types import (
    Condition,
    Direction,
    Divergence,
    FeatureRef,
    Intervention,
    Positions,
    SamplingParams,
    Schedule,
    Score,
    ScoreItem,
    Site,
)
from tests.inference import saes
from tests.inference.conftest import CACHE
from tests.inference.driver import add, alone, direction, request, start, start_job, together
from tests.inference.tiny import FAMILIES

D, L = 32, 1
IDS = list(range(20, 33))
SOURCE = "1-test"
STEERED = ("standard", "jumprelu", "gated", "topk", "abstopk", "matching_pursuit")
GENERATED = Positions(prompt=False)


def with_sae(model, folder: Path, architecture: str = "standard", id: str = SOURCE, **settings):
    """`model` with one SAE, and sae-lens's own, its decoder norms folded where it allows that."""
    saes.save(architecture, folder / id, **{"hook": f"blocks.{L}.hook_resid_post", **settings})
    model.sources = Sources([folder])
    try:
        theirs = SAE.load_from_disk(folder / id, fold_W_dec_norm=True)
    except NotImplementedError:
        theirs = SAE.load_from_disk(folder / id)
    return model, theirs.requires_grad_(False)


def feature(index: int, operation: str = "add", strength: float = 1.0, **more) -> Intervention:
    return Intervention(operation, strength, feature=FeatureRef(more.pop("source", SOURCE), index), **more)


def no_vectors(id: str):
    raise AssertionError(f"nobody asked for {id}")


def make_row(model, interventions=(), ids=IDS) -> Row:
    state = row_state(SamplingParams(max_tokens=24, temperature=0.0), list(ids), 0, model.vocab_size)
    return Row(list(ids), state, edits_of(tuple(interventions), model, no_vectors))


def residuals(model, interventions=(), ids=IDS):
    """resid_post [layers, tokens, d_model] of a prefill with these interventions, and what they report."""
    made, batch = make_row(model, interventions, ids), Batch(model)
    batch.join([made])
    model.hooks.taken = []
    batch.prefill(1000)
    taken, model.hooks.taken = model.hooks.taken, None
    batch.settle()
    return torch.stack(taken)[:, 0].double(), [e.applied() for e in made.edits]


def set_by_hand(sae, h: torch.Tensor, change) -> torch.Tensor:
    """Encode, change the latents, decode, and add the error."""
    latents = sae.encode(h)
    error = h - sae.decode(latents)
    latents = sae.encode(h)
    change(latents)
    return sae.decode(latents) + error


def firing(sae, h: torch.Tensor, n: int) -> list[int]:
    """Latents that fire on some tokens of `h` and, where there are any, not on others."""
    share = (sae.encode(h) != 0).double().mean(0)
    order = (share - 0.6).abs().argsort()
    return [int(i) for i in order if share[i] > 0][:n]


@pytest.mark.parametrize("scaling", ["none", "constant_norm_rescale", "layer_norm"])
@pytest.mark.parametrize("architecture", STEERED)
def test_set_latents_equal_setting_and_decoding_with_sae_lens(architecture, scaling, tiny_model, tmp_path):
    model, sae = with_sae(tiny_model("llama"), tmp_path, architecture, normalize_activations=scaling)
    base, _ = residuals(model)
    a, b, c, d = firing(sae, base[L], 4)
    middle = sae.encode(base[L])[:, [b, c]].median(0).values
    steered = [
        feature(a, "clamp", 3.0),
        feature(b, "floor", float(middle[0]) + 0.1),
        feature(c, "cap", float(middle[1]) - 0.01),
        feature(d, "ablate", 1.0),
        feature(0 if a else 1, "add", 0.0),
    ]

    def change(latents):
        latents[:, a] = 3.0
        latents[:, b] = latents[:, b].clamp(min=float(middle[0]) + 0.1)
        latents[:, c] = latents[:, c].clamp(max=float(middle[1]) - 0.01)
        latents[:, d] = 0.0

    expected = set_by_hand(sae, base[L], change)
    moved, applied = residuals(model, steered)
    torch.testing.assert_close(moved[L], expected, atol=2e-5, rtol=2e-5)
    assert torch.equal(moved[:L], base[:L])
    assert applied[0].activation == pytest.approx(float(sae.encode(base[L])[:, a].mean()), abs=1e-5)
    assert [x.feature.index for x in applied[:4]] == [a, b, c, d]
    assert (expected - base[L]).abs().max() > 0.5


CENTRED = {"metadata": {"model_from_pretrained_kwargs": {"center_writing_weights": True}}}


@pytest.mark.parametrize(
    ("family", "architecture", "settings"),
    [
        ("gpt2", "standard", CENTRED),
        ("gpt2", "topk", CENTRED),
        ("gpt2", "jumprelu", CENTRED | {"normalize_activations": "layer_norm"}),
        ("llama", "topk", {"rescale_acts_by_decoder_norm": True}),
        ("llama", "jumprelu", {"apply_b_dec_to_input": False}),
    ],
)
def test_what_an_sae_does_to_its_input_is_in_what_is_set(family, architecture, settings, tiny_model, tmp_path):
    """Centring, a constant factor, latents in units of their decoder rows: what is read is what is set."""
    model, _ = with_sae(tiny_model(family), tmp_path, architecture, **settings)
    ours = model.sources.get(SOURCE, model)
    assert ours.centred == ("metadata" in settings)
    base, _ = residuals(model)
    (a,) = firing(ours, base[L], 1)
    moved, (applied,) = residuals(model, [feature(a, "clamp", 3.0)])
    latents = ours.encode(base[L])
    assert applied.activation == pytest.approx(float(latents[:, a].mean()), abs=1e-5)
    before = ours.decode(latents, base[L])
    latents[:, a] = 3.0
    torch.testing.assert_close(moved[L] - base[L], ours.decode(latents, base[L]) - before, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_of_model_is_set_exactly(family, tiny_model, tmp_path):
    model, sae = with_sae(tiny_model(family), tmp_path, "jumprelu")
    base, _ = residuals(model)
    (a,) = firing(sae, base[L], 1)
    moved, _ = residuals(model, [feature(a, "clamp", 2.0)])
    expected = set_by_hand(sae, base[L], lambda latents: latents[:, a].fill_(2.0))
    torch.testing.assert_close(moved[L], expected, atol=2e-5, rtol=2e-5)
    assert (moved[3] - base[3]).abs().max() > 1e-6


@pytest.mark.parametrize("hook", ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre", "blocks.3.hook_resid_post"])
def test_an_sae_is_read_and_written_where_it_was_trained(hook, tiny_model, tmp_path):
    model, sae = with_sae(tiny_model("llama"), tmp_path, hook=hook)
    layer = Site.parse(hook).layer - (1 if hook.endswith("pre") else 0)
    ids = torch.tensor([IDS])
    base, _ = residuals(model)
    at = base[layer] if layer >= 0 else model.hf.get_input_embeddings()(ids)[0].double()
    (a,) = firing(sae, at, 1)
    moved, (applied,) = residuals(model, [feature(a, "clamp", 2.0)])
    assert applied.activation == pytest.approx(float(sae.encode(at)[:, a].mean()), abs=1e-5)
    if layer >= 0:
        torch.testing.assert_close(
            moved[layer], set_by_hand(sae, at, lambda latents: latents[:, a].fill_(2.0)), atol=2e-5, rtol=2e-5
        )
    else:
        assert (moved[0] - base[0]).abs().max() > 1e-3


@pytest.mark.parametrize("architecture", [*STEERED, "gated"])
def test_add_is_adding_the_decoder_row_bit_for_bit(architecture, tiny_model, tmp_path):
    model, sae = with_sae(tiny_model("llama"), tmp_path, architecture)
    row = sae.W_dec[7].numpy().astype(np.float32)
    by_feature, (applied,) = residuals(model, [feature(7, "add", 2.5)])
    by_vector, _ = residuals(model, [Intervention(strength=2.5, directions=(Direction(Site(L), row),))])
    assert torch.equal(by_feature, by_vector)
    base, _ = residuals(model)
    torch.testing.assert_close(by_feature[L] - base[L], 2.5 * sae.W_dec[7].expand(13, D), atol=1e-6, rtol=1e-5)
    assert applied.activation is None
    assert applied.mean_dose == pytest.approx(2.5 * float(sae.W_dec[7].norm()), rel=1e-5)


def test_an_sae_of_what_an_mlp_writes_can_only_be_added(tiny_model, tmp_path):
    model, sae = with_sae(tiny_model("gemma2"), tmp_path, hook="blocks.1.hook_mlp_out")
    base, _ = residuals(model)
    moved, _ = residuals(model, [feature(3, "add", 2.0)])
    torch.testing.assert_close(moved[1] - base[1], 2.0 * sae.W_dec[3].expand(13, D), atol=1e-6, rtol=1e-5)
    with pytest.raises(InvalidRequest, match="only be added") as refusal:
        residuals(model, [feature(3, "clamp", 2.0)])
    assert refusal.value.code == "feature_site"


# ---- the order of several ----


def test_features_in_a_row_are_set_at_once_whatever_their_order(tiny_model, tmp_path):
    """The encoder rows overlap, so that one after the other would come out otherwise."""
    model, sae = with_sae(tiny_model("llama"), tmp_path)
    base, _ = residuals(model)
    a, b = firing(sae, base[L], 2)
    edits = [feature(a, "clamp", 4.0), feature(b, "clamp", -1.0)]
    one, _ = residuals(model, edits)
    other, _ = residuals(model, edits[::-1])
    torch.testing.assert_close(one[L], other[L], atol=1e-9, rtol=0)
    after = set_by_hand(sae, base[L], lambda latents: latents[:, a].fill_(4.0))
    after = set_by_hand(sae, after, lambda latents: latents[:, b].fill_(-1.0))
    assert (one[L] - after).abs().max() > 1e-2


@pytest.mark.parametrize("architecture", ["standard", "topk"])
def test_a_vector_between_two_features_is_seen_by_the_second(architecture, tiny_model, tmp_path):
    model, sae = with_sae(tiny_model("llama"), tmp_path, architecture)
    base, _ = residuals(model)
    a, b = firing(sae, base[L], 2)
    v = direction(D, L, seed=4)
    moved, _ = residuals(model, [feature(a, "clamp", 4.0), Intervention(directions=(v,)), feature(b, "clamp", 2.0)])
    h = set_by_hand(sae, base[L], lambda latents: latents[:, a].fill_(4.0)) + torch.from_numpy(v.values).double()
    expected = set_by_hand(sae, h, lambda latents: latents[:, b].fill_(2.0))
    torch.testing.assert_close(moved[L], expected, atol=2e-5, rtol=2e-5)


def test_a_feature_named_again_is_read_again(tiny_model, tmp_path):
    model, sae = with_sae(tiny_model("llama"), tmp_path)
    base, _ = residuals(model)
    (a,) = firing(sae, base[L], 1)
    moved, _ = residuals(model, [feature(a, "add", 5.0), feature(a, "clamp", 1.0)])
    h = base[L] + 5.0 * sae.W_dec[a]
    expected = set_by_hand(sae, h, lambda latents: latents[:, a].fill_(1.0))
    torch.testing.assert_close(moved[L], expected, atol=2e-5, rtol=2e-5)


def test_two_sources_at_one_site_follow_one_another(tiny_model, tmp_path):
    model, sae = with_sae(tiny_model("llama"), tmp_path, id="1-second", architecture="jumprelu", seed=3)
    model, first = with_sae(model, tmp_path)
    base, _ = residuals(model)
    (a,), (b,) = firing(first, base[L], 1), firing(sae, base[L], 1)
    moved, _ = residuals(model, [feature(a, "clamp", 4.0), feature(b, "clamp", 2.0, source="1-second")])
    h = set_by_hand(first, base[L], lambda latents: latents[:, a].fill_(4.0))
    expected = set_by_hand(sae, h, lambda latents: latents[:, b].fill_(2.0))
    torch.testing.assert_close(moved[L], expected, atol=2e-5, rtol=2e-5)


def test_a_kept_norm_is_that_before_the_edit(tiny_model, tmp_path):
    model, sae = with_sae(tiny_model("llama"), tmp_path)
    base, _ = residuals(model)
    (a,) = firing(sae, base[L], 1)
    moved, _ = residuals(model, [feature(a, "clamp", 6.0, norm_preserving=True)])
    free = set_by_hand(sae, base[L], lambda latents: latents[:, a].fill_(6.0))
    expected = free * (base[L].norm(dim=-1) / free.norm(dim=-1))[:, None]
    torch.testing.assert_close(moved[L], expected, atol=2e-5, rtol=2e-5)


# ---- positions, schedules, conditions ----


def test_positions_and_conditions_choose_the_tokens(tiny_model, tmp_path):
    model, sae = with_sae(tiny_model("llama"), tmp_path)
    base, _ = residuals(model)
    (a,) = firing(sae, base[L], 1)
    along = direction(D, 0, seed=9).values
    unit = torch.from_numpy(along).double() / np.linalg.norm(along)
    values = base[0] @ unit
    condition = Condition(0, float(values.median()) + 1e-6, direction=along, decided="token")
    steered = feature(a, "clamp", 3.0, positions=Positions(start=2, stop=11), condition=condition)
    moved, (applied,) = residuals(model, [steered])
    touched = (values > condition.threshold) & (torch.arange(13) >= 2) & (torch.arange(13) < 11)
    expected = set_by_hand(sae, base[L], lambda latents: latents[:, a].fill_(3.0))
    torch.testing.assert_close(moved[L], torch.where(touched[:, None], expected, base[L]), atol=2e-5, rtol=2e-5)
    assert applied.prompt_tokens == int(touched.sum())
    assert 0 < applied.prompt_tokens < 9


# ---- the shared batch ----


def many(a: int, b: int) -> list[list[Intervention]]:
    return [
        [],
        [feature(a, "add", 3.0)],
        [feature(a, "clamp", 3.0), feature(b, "clamp", 2.0)],
        [feature(a, "ablate", 1.0, positions=GENERATED)],
        [add(D, L, seed=2, strength=4.0), feature(b, "floor", 2.0), feature(a, "cap", 0.1)],
        [feature(a, "clamp", 3.0, schedule=Schedule("ramp", 5)), add(D, 2, seed=3, strength=4.0)],
        [feature(b, "clamp", 5.0, norm_preserving=True)],
        [add(D, L, seed=5, strength=4.0)],
    ]


@pytest.mark.parametrize(
    ("family", "architecture"), [("llama", "jumprelu"), ("gpt2", "topk"), ("gemma3", "gated"), ("gpt_oss", "standard")]
)
def test_rows_write_what_they_write_alone(family, architecture, make_engine, tmp_path):
    engine = make_engine(family, prefill_tokens=8)
    with_sae(engine.batch.model, tmp_path / "saes", architecture)
    requests = [request(f"r{i}", IDS[: 9 + i % 3], interventions=i_) for i, i_ in enumerate(many(3, 11))]
    expected = [alone(engine, r) for r in requests]
    assert together(engine, requests) == expected
    listeners = [start(engine, r) for r in requests]
    assert [listener.wait().tokens for listener in listeners] == expected
    assert len({tuple(t) for t in expected}) >= 5


@pytest.mark.parametrize("strengthless", [feature(3, "add", 0.0), feature(3, "ablate", 0.0)])
def test_strength_nought_equals_base_bit_for_bit(strengthless, tiny_model, tmp_path):
    model, _ = with_sae(tiny_model("llama"), tmp_path)
    base, _ = residuals(model)
    moved, (applied,) = residuals(model, [strengthless])
    assert torch.equal(base, moved)
    assert applied.mean_dose == 0.0


def answered(model, rows: list[Row], answers: list[int]) -> None:
    """All rows read the same answer, whatever they would write."""
    batch = Batch(model)
    batch.join(rows)
    batch.prefill(1000)
    for token in answers:
        for made in rows:
            made.tokens[-1] = token
        batch.step()
    batch.settle()


@pytest.mark.parametrize(
    ("dtype", "architecture"),
    [
        *(("float32", architecture) for architecture in ("standard", "gated", "topk")),
        *(("bfloat16", architecture) for architecture in ("standard", "gated")),  # who is among the k hangs on rounding
    ],
)
def test_a_step_of_ours_does_what_the_modules_do(tiny_folder, dtype, architecture, tmp_path):
    folder = str(tiny_folder("llama"))
    models = [load(folder, cache_dir=CACHE, dtype=dtype, device="cpu", speed=speed) for speed in (None, ())]
    if models[0].decoder is None:
        pytest.skip("no C compiler here")
    loose = {"rel": 3e-2, "abs": 5e-2} if dtype == "bfloat16" else {"rel": 1e-3, "abs": 2e-4}
    receipts = []
    for model in models:
        with_sae(model, tmp_path, architecture)
        rows = [make_row(model, i) for i in many(3, 11)]
        answered(model, rows, [9, 8, 30, 31, 60, 61, 62, 63])
        receipts.append([e.applied() for made in rows for e in made.edits])
    for fast, plain in zip(*receipts, strict=True):
        assert fast.generated_tokens == plain.generated_tokens == 8
        assert fast.mean_dose == pytest.approx(plain.mean_dose, **loose)
        assert fast.projection_after == pytest.approx(plain.projection_after, **loose)
        if plain.activation is not None:
            assert fast.activation == pytest.approx(plain.activation, **loose)
    assert any(applied.activation for applied in receipts[1])


@pytest.mark.parametrize("architecture", ["standard", "topk"])
def test_neighbours_of_a_steered_feature_keep_their_bits(tiny_folder, architecture, tmp_path):
    """On the native path, a row beside one that needs a whole encoder computes as it did beside any other."""
    model = load(str(tiny_folder("llama")), cache_dir=CACHE, dtype="float32", device="cpu")
    with_sae(model, tmp_path, architecture)
    neighbour = [add(D, L, seed=5, strength=4.0), add(D, L, seed=6, strength=2.0)]

    def logits(other: list[Intervention]) -> torch.Tensor:
        rows, seen = [make_row(model, neighbour), make_row(model, other), make_row(model)], []
        batch = Batch(model)
        batch._choose = lambda rows, found: seen.append(found.clone()) or [r.tokens.append(9) for r in rows]
        batch.join(rows)
        batch.prefill(1000)
        for _ in range(3):
            batch.step()
        return torch.stack([found[[0, 2]] for found in seen])

    assert torch.equal(logits([feature(3, "clamp", 3.0)]), logits([add(D, L, seed=7)]))


# ---- units ----


def test_strength_counts_in_the_largest_activation_or_in_residual_norms(tiny_model, tmp_path):
    model, sae = with_sae(tiny_model("llama"), tmp_path)
    base, _ = residuals(model)
    (a,) = firing(sae, base[L], 1)
    ours = model.sources.get(SOURCE, model)
    ours.max_activations, ours.residual_norm = torch.arange(64) / 4.0, 5.0
    most = a / 4.0
    row = sae.W_dec[a]
    moved, _ = residuals(model, [feature(a, "add", 0.5, unit="max")])
    torch.testing.assert_close(moved[L] - base[L], (0.5 * most * row).expand(13, D), atol=1e-5, rtol=1e-5)
    moved, _ = residuals(model, [feature(a, "clamp", 2.0, unit="max")])
    expected = set_by_hand(sae, base[L], lambda latents: latents[:, a].fill_(2.0 * most))
    torch.testing.assert_close(moved[L], expected, atol=2e-5, rtol=2e-5)
    moved, (applied,) = residuals(model, [feature(a, "add", 0.5, unit="relative")])
    torch.testing.assert_close(moved[L] - base[L], (2.5 * row / row.norm()).expand(13, D), atol=1e-5, rtol=1e-5)
    assert applied.residual_norm == 5.0
    with pytest.raises(InvalidRequest, match="never fired") as refusal:
        residuals(model, [feature(0, "add", 0.5, unit="max")])
    assert refusal.value.code == "no_max_activation"


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (feature(64), "feature_out_of_range"),
        (feature(-1), "feature_out_of_range"),
        (feature(3, "rotate"), "feature_operation"),
        (feature(3, "affine"), "feature_operation"),
        (feature(3, "clamp", unit="relative"), "bad_unit"),
        (feature(3, unit="max"), "no_max_activation"),
        (feature(3, unit="relative"), "no_residual_norm"),
        (feature(3, layers=(1,)), "layers_of_feature"),
        (feature(3, directions=(direction(D, 1, 1),)), "one_source"),
        (Intervention(), "one_source"),
        (feature(3, schedule=Schedule("ramp", 0)), "bad_schedule"),
        (feature(3, positions=Positions(prompt=False, generated=False)), "no_positions"),
        (replace(add(D, 1, 1), unit="max"), "bad_unit"),
        (
            feature(3, condition=Condition(2, 0.0, direction=np.ones(D, np.float32), decided="token")),
            "condition_after_edit",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(bad, code, tiny_model, tmp_path):
    model, _ = with_sae(tiny_model("llama"), tmp_path)
    with pytest.raises(InvalidRequest) as refusal:
        edits_of((bad,), model, no_vectors)
    assert refusal.value.code == code


def test_a_source_that_is_not_there_is_refused(tiny_model, tmp_path):
    model, _ = with_sae(tiny_model("llama"), tmp_path)
    with pytest.raises(NotFound):
        edits_of((feature(3, source="7-none"),), model, no_vectors)


# ---- jobs ----


def test_jobs_that_measure_steering_honour_features(make_engine, tmp_path):
    engine = make_engine("llama")
    model, sae = with_sae(engine.batch.model, tmp_path / "saes")
    engine.sources = model.sources
    by_feature = feature(7, "add", 4.0)
    by_vector = Intervention(strength=4.0, directions=(Direction(Site(L), sae.W_dec[7].numpy().astype(np.float32)),))
    found = []
    for steered in ((), (by_feature,), (by_vector,), (feature(7, "clamp", 4.0),)):
        items = (ScoreItem((" the quick", " a calm reply"), prompt="Tabby cats", interventions=steered),)
        scored = start_job(engine, Score(id="s", items=items)).wait().result.payload
        moved = start_job(engine, Divergence(id="d", texts=("Tabby cats purr when",), interventions=steered)).wait()
        found.append((scored["items"][0]["logprobs"], moved.result.payload["texts"][0]["kl"]))
    assert found[1] == found[2]
    assert len({tuple(logprobs) for logprobs, _ in found}) == 3
    assert found[0][1] == pytest.approx(0.0, abs=1e-12)
    assert found[3][1] > 1e-6
