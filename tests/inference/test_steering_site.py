"""The residual moves at the named site by exactly what was asked, against TransformerLens and Hugging Face."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from inference.batch import Batch, Row
from inference.errors import InvalidRequest
from inference.interventions import compile_intervention
from inference.sampling import row_state
from inference.types import Direction, Intervention, Positions, SamplingParams, Site
from tests.inference.driver import direction

IDS = list(range(20, 33))
D = 32


def residuals(model, interventions=(), ids=IDS):
    """resid_post [layers, tokens, d_model] of a prefill with these interventions."""
    compiled = [e for i in interventions for e in compile_intervention(i, None, model.n_layers, model.d_model)]
    row = Row(
        list(ids), row_state(SamplingParams(max_tokens=4, temperature=0.0), list(ids), 0, model.vocab_size), compiled
    )
    batch = Batch(model)
    batch.join([row])
    model.hooks.taken = []
    batch.prefill(1000)
    taken, model.hooks.taken = model.hooks.taken, None
    batch.settle()
    return torch.stack(taken)[:, 0].double(), compiled


def coordinate(residual, d):
    unit = torch.from_numpy(d.values).double()
    return residual @ (unit / unit.norm())


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "gpt2", "qwen3"])
@pytest.mark.parametrize("layer", [0, 2, 3])
def test_add_moves_this_layer_exactly_and_no_earlier_one(tiny_model, family, layer):
    model = tiny_model(family)
    d = direction(D, layer, seed=1)
    base, _ = residuals(model)
    steered, _ = residuals(model, [Intervention(strength=2.5, directions=(d,))])
    assert torch.equal(steered[:layer], base[:layer])
    torch.testing.assert_close(steered[layer] - base[layer], 2.5 * torch.from_numpy(d.values).double().expand(13, D))
    assert all((steered[i] - base[i]).abs().max() > 1e-3 for i in range(layer + 1, 4))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "gpt2"])
def test_layers_are_numbered_as_in_transformer_lens_and_hugging_face(tiny_model, plain_model, family, tiny_folder):
    model = tiny_model(family)
    ours, _ = residuals(model)
    hidden = model.hf(torch.tensor([IDS]), output_hidden_states=True, use_cache=False).hidden_states
    for layer in range(3):
        torch.testing.assert_close(ours[layer], hidden[layer + 1][0].double(), atol=2e-5, rtol=1e-5)
    other = plain_model(family)
    bridge = TransformerBridge.boot_transformers(
        str(tiny_folder(family)), hf_model=other.hf, tokenizer=other.tokenizer, dtype=torch.float64, device="cpu"
    )
    _, cache = bridge.run_with_cache(torch.tensor([IDS]))
    for layer in range(4):
        torch.testing.assert_close(ours[layer], cache[Site(layer).hook_name][0].double(), atol=2e-5, rtol=1e-5)


def test_adding_at_a_site_equals_a_transformer_lens_hook_there(tiny_model, plain_model, tiny_folder):
    model, other = tiny_model("llama"), plain_model("llama")
    d = direction(D, 1, seed=8)
    ours, _ = residuals(model, [Intervention(strength=-1.5, directions=(d,))])
    bridge = TransformerBridge.boot_transformers(
        str(tiny_folder("llama")), hf_model=other.hf, tokenizer=other.tokenizer, dtype=torch.float64, device="cpu"
    )
    seen = {}
    move = lambda h, hook: h - 1.5 * torch.from_numpy(d.values).double()  # noqa: E731
    keep = lambda h, hook: seen.update({hook.name: h.detach().clone()})  # noqa: E731
    hooks = [("blocks.1.hook_resid_post", move), ("blocks.3.hook_resid_post", keep)]
    bridge.run_with_hooks(torch.tensor([IDS]), fwd_hooks=hooks)
    (last,) = seen.values()
    torch.testing.assert_close(ours[3], last[0].double(), atol=2e-5, rtol=1e-5)


def test_resid_pre_is_resid_post_one_layer_earlier(tiny_model):
    model = tiny_model("llama")
    d = direction(D, 2, seed=2)
    pre = Direction(Site(3, "resid_pre"), d.values)
    a, _ = residuals(model, [Intervention(directions=(d,))])
    b, _ = residuals(model, [Intervention(directions=(pre,))])
    assert torch.equal(a, b)


def test_resid_pre_of_layer_0_is_the_embedding(tiny_model):
    model = tiny_model("llama")
    d = Direction(Site(0, "resid_pre"), direction(D, 0, seed=2).values)
    base, _ = residuals(model)
    moved, _ = residuals(model, [Intervention(directions=(d,))])
    assert (moved[0] - base[0]).abs().max() > 1e-3


def test_ablate_leaves_no_component_and_clamp_sets_it(tiny_model):
    model = tiny_model("gemma3")
    d = direction(D, 1, seed=3)
    ablated, _ = residuals(model, [Intervention(operation="ablate", strength=1.0, directions=(d,))])
    assert coordinate(ablated[1], d).abs().max() < 1e-6
    clamped, _ = residuals(model, [Intervention(operation="clamp", strength=-4.0, directions=(d,))])
    torch.testing.assert_close(coordinate(clamped[1], d), torch.full((13,), -4.0).double(), atol=1e-5, rtol=1e-5)


def test_cap_lowers_what_is_above_and_leaves_the_rest(tiny_model):
    model = tiny_model("llama")
    d = direction(D, 1, seed=3)
    base = coordinate(residuals(model)[0][1], d)
    limit = float(base.median())
    capped = coordinate(residuals(model, [Intervention(operation="cap", strength=limit, directions=(d,))])[0][1], d)
    torch.testing.assert_close(capped, base.clamp(max=limit), atol=1e-5, rtol=1e-5)


def test_several_interventions_on_one_layer_act_in_order(tiny_model):
    model = tiny_model("llama")
    d = direction(D, 1, seed=3)
    edits = [Intervention(operation="ablate", directions=(d,)), Intervention(strength=2.0, directions=(d,))]
    moved, _ = residuals(model, edits)
    torch.testing.assert_close(coordinate(moved[1], d), torch.full((13,), 6.0).double(), atol=1e-5, rtol=1e-5)
    backwards, _ = residuals(model, edits[::-1])
    assert coordinate(backwards[1], d).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("positions", "touched"),
    [
        (Positions(), range(13)),
        (Positions(generated=True, prompt=False), []),
        (Positions(start=4, stop=9), range(4, 9)),
        (Positions(special=False), [i for i in range(13) if i not in (0, 5)]),
    ],
)
def test_positions_choose_the_tokens(tiny_model, positions, touched):
    model = tiny_model("llama")
    ids = [0, *IDS[1:5], 3, *IDS[6:]]  # <bos> first, <user> at 5
    d = direction(D, 2, seed=3)
    base, _ = residuals(model, ids=ids)
    moved, (edit,) = residuals(model, [Intervention(directions=(d,), positions=positions)], ids=ids)
    changed = (moved[2] - base[2]).abs().amax(-1) > 1e-9
    assert changed.nonzero()[:, 0].tolist() == list(touched)
    assert edit.applied().prompt_tokens == len(list(touched))


def test_the_receipt_states_dose_and_projection(tiny_model):
    model = tiny_model("llama")
    d = direction(D, 2, seed=3, norm=3.0)
    base, _ = residuals(model)
    _, (edit,) = residuals(model, [Intervention(strength=2.0, directions=(d,))])
    applied = edit.applied()
    assert applied.hook_name == "blocks.2.hook_resid_post"
    assert applied.mean_dose == pytest.approx(6.0, rel=1e-5)
    assert applied.projection_before == pytest.approx(float(coordinate(base[2], d).mean()), rel=1e-4)
    assert applied.projection_after == pytest.approx(applied.projection_before + 6.0, rel=1e-4)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (Intervention(directions=(direction(D, 4, 1),)), "layer_out_of_range"),
        (Intervention(directions=(direction(16, 1, 1),)), "wrong_size"),
        (Intervention(directions=(Direction(Site(1), np.zeros(D, np.float32)),)), "bad_direction"),
        (Intervention(directions=(Direction(Site(1), np.full(D, np.nan, np.float32)),)), "bad_direction"),
        (Intervention(unit="relative", directions=(direction(D, 1, 1),)), "no_residual_norm"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_a_code(bad, code):
    with pytest.raises(InvalidRequest) as refusal:
        compile_intervention(bad, None, 4, D)
    assert refusal.value.code == code


def test_transformer_lens_names_are_understood():
    assert Site.parse("blocks.7.hook_resid_post") == Site(7)
    with pytest.raises(InvalidRequest):
        Site.parse("blocks.7.hook_z")
