"""Estimates equal the formula by hand, patching equals TransformerLens's, and where all is linear both agree."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from inference.attribution import scores
from inference.attribution.exact import correlations
from inference.attribution.scores import Contrasted
from inference.attribution.taps import Scoring
from inference.attribution.walk import Trace
from inference.errors import InvalidRequest
from inference.models import plain
from inference.models.loader import LoadedModel
from inference.types import Component, Progress, Result
from tests.inference import tiny
from tests.inference.attributing import (
    CLEAN,
    CORRUPTED,
    ByHand,
    actual_of,
    attribute_job,
    difference,
    patch_job,
    payload_of,
    tokens,
)

RESIDUAL = ("resid_pre", "resid_post")
PLAIN = (*RESIDUAL, "attn_out", "mlp_out", "z")
EVERY = (*PLAIN, "q", "k", "v")
LONG_CLEAN, LONG_CORRUPTED = "Answer: (A) yes", "Answer: (B) yes"


def close(ours: Any, theirs: Any, tolerance: float = 2e-5) -> None:
    theirs = np.asarray(theirs, float)
    np.testing.assert_allclose(np.asarray(ours, float), theirs, atol=tolerance * max(1.0, np.abs(theirs).max()), rtol=0)


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def both(request, tiny_model, plain_model):
    """The model as it is served, and one of transformers' own modules."""
    return tiny_model(request.param), plain_model(request.param)


def test_an_estimate_is_difference_times_gradient(both):
    model, other = both
    payload = payload_of(model, attribute_job(sites=PLAIN))
    by_hand = ByHand(other).scores(CLEAN, CORRUPTED)
    for site in PLAIN:
        for layer in range(model.n_layers):
            ours = np.asarray(payload["sites"][site][layer])
            close(ours.sum(-1) if site == "z" else ours, by_hand[site, layer])
    close(payload["sums"]["mlp_out"], [float(by_hand["mlp_out", i].sum()) for i in range(model.n_layers)])
    logits = other.hf(tokens(other, CLEAN), use_cache=False).logits
    close(payload["clean"]["metric"], difference(other, logits).detach())


def test_gradient_drop_is_the_mean_magnitude_without_each_layer(both):
    model, other = both
    sites = (*RESIDUAL, "attn_out", "mlp_out")
    payload = payload_of(model, attribute_job(sites=sites, grad_drop=True))
    hand = ByHand(other)
    each = [hand.scores(CLEAN, CORRUPTED, drop) for drop in range(model.n_layers)]
    assert payload["signed"] is False
    for site in sites:
        for layer in range(model.n_layers):
            total = sum(found[site, layer].abs() for found in each)
            close(payload["sites"][site][layer], total / (model.n_layers - (site not in RESIDUAL)))


def test_patching_is_transformer_lenss(both, tiny_folder):
    from transformer_lens import patching
    from transformer_lens.model_bridge import TransformerBridge

    model, other = both
    family = {"gemma3_text": "gemma3"}.get(t := other.hf.config.model_type, t)
    bridge: Any = TransformerBridge.boot_transformers(
        str(tiny_folder(family)), hf_model=other.hf, tokenizer=other.tokenizer, dtype=torch.float64, device="cpu"
    )
    metric = lambda logits: difference(other, logits)  # noqa: E731
    corrupted = tokens(other, CORRUPTED)
    last = corrupted.shape[1] - 1
    with torch.no_grad():
        _, cache = bridge.run_with_cache(tokens(other, CLEAN))
        base = metric(bridge(corrupted))

        def theirs(site: str, frame: pd.DataFrame, setter: Any) -> Any:
            found = patching.generic_activation_patch(
                bridge, corrupted, cache, metric, patch_setter=setter, activation_name=site, index_df=frame
            )
            return found - base

        for site in ("resid_pre", "resid_post", "attn_out", "mlp_out"):
            frame = pd.DataFrame([(layer, p) for layer in (0, 3) for p in (1, last)], columns=["layer", "pos"])
            ours = actual_of(payload_of(model, patch_job(sites=(site,))))
            expected = theirs(site, frame, patching.layer_pos_patch_setter)
            close([ours[site, layer, p, None] for layer, p in frame.itertuples(index=False)], expected)
        for site in ("z", "q", "k", "v"):
            payload = payload_of(model, patch_job(sites=(site,), by_position=False))
            heads = payload["heads"] if site in "zq" else payload["kv_heads"]
            frame = pd.DataFrame([(layer, h) for layer in (0, 2) for h in (0, heads - 1)], columns=["layer", "head"])
            expected = theirs(site, frame, patching.layer_head_vector_patch_setter)
            ours = actual_of(payload)
            close([ours[site, layer, None, h] for layer, h in frame.itertuples(index=False)], expected)
        if family == "llama":  # and by the function that people call
            heads = patching.get_act_patch_attn_head_out_by_pos(bridge, corrupted, cache, metric) - base
            ours = actual_of(payload_of(model, patch_job(sites=("z",))))
            close([ours["z", i, p, h] for i in range(4) for p in range(last + 1) for h in range(4)], heads.flatten())


def test_a_serving_tree_is_not_touched(both):
    model, _ = both
    ids = tokens(model, CLEAN)
    modules = {name: type(module) for name, module in model.hf.named_modules()}
    before = model.hf(ids, use_cache=False).logits.clone()
    payload_of(model, attribute_job(sites=EVERY, qk_fix=True))
    assert torch.equal(model.hf(ids, use_cache=False).logits, before)
    assert {name: type(module) for name, module in model.hf.named_modules()} == modules
    assert all(p.grad is None and not p.requires_grad for p in model.hf.parameters())


# ---- where all is linear ----


@pytest.fixture
def linear_model(tiny_model, monkeypatch):
    """GPT-2 without norms, with an MLP that is linear and attention that looks everywhere alike."""
    model = tiny_model("gpt2")
    monkeypatch.setattr(model.hf.config, "activation_function", "linear")
    with torch.no_grad():
        for block in model.layers:
            block.attn.c_attn.weight[:, : 2 * model.d_model] = 0
            block.attn.c_attn.bias[: 2 * model.d_model] = 0
    with plain.borrowed(model, idle_seconds=0) as opening:
        for block in opening.view.blocks:
            block.ln_1, block.ln_2 = nn.Identity(), nn.Identity()
        opening.view.hf.transformer.ln_f = nn.Identity()
        yield model


def test_where_all_is_linear_estimate_and_patching_agree(linear_model):
    sites = (*PLAIN, "v")
    for options in ({}, {"by_position": False}, {"steps": 2, "path": "site"}):
        payload = payload_of(
            linear_model, patch_job(sites=sites, clean=LONG_CLEAN, corrupted=LONG_CORRUPTED, **options)
        )
        predicted, actual = ([p[k] for p in payload["patched"]] for k in ("predicted", "actual"))
        assert max(map(abs, actual)) > 0.1
        close(predicted, actual)
        assert payload["pearson"] == pytest.approx(1.0, abs=1e-5)
        assert payload["by_site"]["z"]["spearman"] > 0.9  # what is 0 but for rounding has no order


def test_with_linear_layers_above_the_query_key_fix_is_exact_and_one_gradient_is_not(linear_model):
    """Attention of the last layer is as usual; nothing behind it bends."""
    with plain.borrowed(linear_model, idle_seconds=0) as opening, torch.no_grad():
        torch.manual_seed(0)
        opening.view.blocks[3].attn.c_attn.weight[:, : 2 * linear_model.d_model].normal_(0, 0.25)
    options = {"sites": ("q", "k"), "layers": (3,), "clean": LONG_CLEAN, "corrupted": LONG_CORRUPTED}
    fixed = payload_of(linear_model, patch_job(qk_fix=True, **options))
    usual = payload_of(linear_model, patch_job(**options))
    actual = [p["actual"] for p in fixed["patched"]]
    assert max(map(abs, actual)) > 0.01
    close([p["predicted"] for p in fixed["patched"]], actual, 1e-4)
    unfixed = {(p["site"], p["position"], p["head"]): p["predicted"] for p in usual["patched"]}
    apart = [abs(unfixed[p["site"], p["position"], p["head"]] - p["actual"]) for p in fixed["patched"]]
    assert max(apart) > 0.01


def test_both_repairs_together_are_each_gradients_own(tiny_model):
    """Nothing lies above the last layer, and to drop what lies below it changes no gradient there."""
    model = tiny_model("gemma2")
    fixed, both = (
        np.asarray(payload_of(model, attribute_job(sites=("q", "k"), qk_fix=True, grad_drop=drop))["sites"][site])
        for site, drop in (("k", False), ("k", True))
    )
    close(both[3], np.abs(fixed[3]))
    assert (both >= 0).all()
    assert np.abs(both[0] - np.abs(fixed[0])).max() > 1e-3


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("sinks", [None, torch.tensor([0.5, -1.0, 2.0, 0.0])])
def test_the_key_fix_is_each_softmax_computed_anew(softcap, sinks):
    torch.manual_seed(1)
    t, heads, kv_heads, d = 5, 4, 2, 3
    mask = torch.full((t, t), -torch.inf).triu(1)[None, None]
    scoring = Scoring(0.6, softcap, mask.clamp_min(torch.finfo(torch.float32).min), sinks)
    q, k, v = (torch.randn(1, t, h, d, dtype=torch.float64) for h in (heads, kv_heads, kv_heads))
    clean = {"q": torch.randn_like(q), "k": torch.randn_like(k) * 3, "v": v}
    gradient = torch.randn(1, t, heads, d, dtype=torch.float64)
    empty = [torch.zeros(1, t, 2), torch.zeros(1, t, 2)]
    places = torch.arange(t)
    runs = Contrasted(
        Trace(0, empty, [clean], [scoring]), Trace(0, empty, [{"q": q, "k": k, "v": v}], [scoring]), places, places
    )

    def z(q, k):
        pattern = scoring.probabilities(scoring.scores(q, k))
        return torch.einsum("nhij,njhd->nihd", pattern, v.repeat_interleave(2, dim=2))

    for site, n in (("q", heads), ("k", kv_heads)):
        found = scores.attention(runs, site, 0, gradient)[0]
        for position in range(t):
            for head in range(n):
                new = {"q": q.clone(), "k": k.clone()}
                new[site][0, position, head] = clean[site][0, position, head]
                expected = ((z(new["q"], new["k"]) - z(q, k)) * gradient).sum()
                torch.testing.assert_close(found[position, head], expected, atol=1e-9, rtol=1e-6)


# ---- integrated gradients ----


def jumps(model: LoadedModel) -> bool:
    """Another expert is another function: along the way the metric jumps, and the answer says so."""
    if model.hf.config.model_type != "gpt_oss":
        return False
    assert any("experts" in note for note in payload_of(model, attribute_job())["notes"])
    return True


@pytest.mark.parametrize("path", ["site", "inputs"])
def test_integrated_gradients_sum_to_the_difference_of_the_metric(both, path):
    model, _ = both
    if jumps(model):
        return
    sites = RESIDUAL if path == "inputs" else ("resid_post",)
    found = {}
    for steps in (4, 64):
        payload = payload_of(model, attribute_job(sites=sites, steps=steps, path=path, layers=(0, 2)))
        span = payload["clean"]["metric"] - payload["corrupted"]["metric"]
        found[steps] = max(abs(total - span) for site in sites for total in payload["sums"][site])
    assert found[64] < 0.01 * max(1.0, abs(span))
    assert found[64] <= found[4] + 1e-6


def test_along_a_site_the_scores_sum_to_the_effect_of_patching_all_of_it(both):
    model, _ = both
    if jumps(model):
        return
    sites = ("attn_out", "mlp_out", "z", "q", "k", "v")
    payload = payload_of(model, attribute_job(sites=sites, steps=64, path="site", layers=(1,)))
    whole = tuple(Component(site, 1) for site in sites)
    exact = actual_of(payload_of(model, patch_job(sites=("resid_pre",), components=whole)))
    for site in sites:
        assert payload["sums"][site][0] == pytest.approx(exact[site, 1, None, None], abs=0.02)


# ---- choosing, naming, summing ----


def test_all_of_a_residual_site_restores_the_clean_metric(both):
    model, _ = both
    payload = payload_of(model, patch_job(sites=RESIDUAL, by_position=False))
    span = payload["clean"]["metric"] - payload["corrupted"]["metric"]
    assert len(payload["patched"]) == 2 * model.n_layers
    close([p["actual"] for p in payload["patched"]], [span] * len(payload["patched"]), 1e-4)


def test_the_top_is_the_largest_and_chosen_components_come_back_in_order(tiny_model):
    model = tiny_model("llama")
    payload = payload_of(model, patch_job(sites=("z", "mlp_out"), top=5))
    every = sorted((abs(v) for site in ("z", "mlp_out") for v in np.ravel(payload["sites"][site])), reverse=True)
    assert [abs(p["predicted"]) for p in payload["patched"]] == pytest.approx(every[:5])
    assert payload["top"] == [{k: v for k, v in p.items() if k != "actual"} for p in payload["patched"]]
    chosen = (Component("q", 2, head=1), Component("resid_post", 3, position=1), Component("v", 0, 2, 1))
    payload = payload_of(model, patch_job(sites=("mlp_out",), components=chosen))
    assert [(p["site"], p["layer"], p["position"], p["head"]) for p in payload["patched"]] == [
        ("q", 2, None, 1),
        ("resid_post", 3, 1, None),
        ("v", 0, 2, 1),
    ]
    assert payload["patched"][0]["hook"] == "blocks.2.attn.hook_q"
    scores_of_head = np.asarray(payload["sites"]["q"])[payload["layers"].index(2), :, 1]
    assert payload["patched"][0]["predicted"] == pytest.approx(scores_of_head.sum(), abs=1e-5)


def test_correlations():
    assert correlations([1, 2, 3], [2, 4, 6.5])["spearman"] == 1.0
    assert correlations([1, 2, 3, 4], [1, 3, 2, 9])["pearson"] == pytest.approx(
        np.corrcoef([1, 2, 3, 4], [1, 3, 2, 9])[0, 1], 1e-5
    )
    assert correlations([1, 1, 1], [1, 2, 3]) == correlations([1, 2], [1, 2]) == {"pearson": None, "spearman": None}


@pytest.mark.parametrize("metric", ["log_probability", "kl"])
def test_other_metrics(tiny_model, plain_model, metric):
    model, other = tiny_model("qwen3"), plain_model("qwen3")
    options = {"metric": metric, "against": ()} | ({"targets": ()} if metric == "kl" else {})
    payload = payload_of(model, patch_job(sites=("resid_pre",), by_position=False, **options))
    clean, corrupted = (
        other.hf(tokens(other, text), use_cache=False).logits[0, -1].log_softmax(-1) for text in (CLEAN, CORRUPTED)
    )
    if metric == "kl":
        expected = [0.0, float((clean.exp() * (clean - corrupted)).sum())]
    else:
        id = other.encode_prompt(" the")[0]
        expected = [float(clean[id]), float(corrupted[id])]
    close([payload["clean"]["metric"], payload["corrupted"]["metric"]], expected)
    close([p["actual"] for p in payload["patched"]], [expected[0] - expected[1]] * 4, 1e-4)


# ---- as a job ----


def test_results_are_json_and_progress_says_what_is_known(tiny_model):
    model = tiny_model("gemma2")
    job = patch_job(sites=EVERY)
    from inference.attribution.jobs import JOBS

    events = [*JOBS[type(job)](model, job)]
    assert isinstance(events[-1], Result)
    assert all(isinstance(event, Progress) and 0 <= event.done <= event.total for event in events[:-1])
    again = json.loads(json.dumps(events[-1].payload, allow_nan=False))
    assert again["targets"] == [[model.encode_prompt(" the")[0], " the"]]
    assert "".join(text for _, text in again["clean"]["tokens"]) == CLEAN
    assert again["passes"] > 0


def test_a_model_of_nan_is_refused(tiny_model):
    model = tiny_model("llama")
    with torch.no_grad():
        model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(InvalidRequest, match="NaN") as caught:
        payload_of(model, attribute_job())
    assert caught.value.code == "non_finite_activations"
